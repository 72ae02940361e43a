# ZegOT on the shapes benchmark: CLIP stays frozen as a whole, learned prompts meet three levels.
_base_ = "./otseg.py"

model = dict(
    backbone=dict(visual_prompts=None, drop_path_rate=0.0, out_indices=(-3, -2, -1), project=False),
    neck=dict(
        adapters=3,  # one for each of the backbone's levels
        text=dict(
            _delete_=True,
            type="LearnablePrompts",
            num_prompts=6,
            num_tokens=8,
            position="end",
        ),
    ),
    decode_head=dict(num_levels=3, decoder_layers=0, predict_from="score"),
)
