# ZegCLIP on Pascal Context, inductive: 49 seen and 10 unseen classes, 40k iterations.
_base_ = [
    "../_base_/models/zegclip.py",
    "../_base_/datasets/context_480.py",
    "../_base_/schedules/schedule_40k.py",
    "../_base_/default_runtime.py",
]

model = dict(
    split=dict(classes="context", unseen="context"),
    data_preprocessor=dict(size=(480, 480)),
    test_cfg=dict(crop_size=(480, 480), stride=(80, 80)),
)
