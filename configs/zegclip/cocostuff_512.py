# ZegCLIP on COCO-Stuff 164k, inductive: 156 seen and 15 unseen classes, 80k iterations.
_base_ = [
    "../_base_/models/zegclip.py",
    "../_base_/datasets/cocostuff_512.py",
    "../_base_/schedules/schedule_80k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    split=dict(classes="cocostuff", unseen="cocostuff"),
    backbone=dict(visual_prompts=dict(num_tokens=100)),
)
