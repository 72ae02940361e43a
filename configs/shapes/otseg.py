# OTSeg on the shapes benchmark, inductive: 15 seen and 5 unseen classes, minutes on one core.
_base_ = [
    "../_base_/models/shapes.py",
    "../_base_/datasets/shapes.py",
    "../_base_/schedules/schedule_20k.py",
    "../_base_/default_runtime.py",
]

optim_wrapper = dict(optimizer=dict(lr=4e-4))  # times 10 in all that trains here
param_scheduler = dict(warmup_iters=50)
train_cfg = dict(max_iters=1500, val_interval=1500)
default_hooks = dict(
    checkpoint=dict(interval=100, max_keep_ckpts=2, save_best=None),
    logger=dict(interval=100),
)
