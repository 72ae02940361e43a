# ZegOT on the shapes benchmark: CLIP stays frozen as a whole, learned prompts meet three levels.
_base_ = "./otseg.py"

model = dict(
    backbone=dict(visual_prompts=None, drop_path_rate=0.0, out_indices=(-3, -2, -1), project=False),
    neck=dict(
        text=dict(
            _delete_=True,
            type="LearnablePrompts",
            num_prompts=6,
            num_tokens=8,
            position="end",
        ),
    ),
    decode_head=dict(decoder_layers=0, predict_from="score"),
)
