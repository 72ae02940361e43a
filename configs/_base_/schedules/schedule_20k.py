# CLIP is frozen. Neck, head and visual prompts learn ten times faster than anything else that
# trains, such as a new parameter of the backbone, unless it gets a key of its own here.
optim_wrapper = dict(
    type="OptimWrapper",
    constructor="TrainableOptimWrapperConstructor",
    optimizer=dict(type="AdamW", lr=2e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            visual_prompts=dict(lr_mult=10.0),
            neck=dict(lr_mult=10.0),
            decode_head=dict(lr_mult=10.0),
        ),
    ),
)
param_scheduler = dict(
    type="WarmupPolyLR",
    warmup_iters=1500,
    warmup_ratio=1e-6,
    power=0.9,
    eta_min=1e-6,
    by_epoch=False,
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=20000, val_interval=2000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
