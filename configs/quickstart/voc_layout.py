# The VOC config, small: generated scenes in VOC's layout and a small CLIP with random weights, so
# that training, evaluation and overlays take minutes and need no download. See
# tools/quickstart.sh. Nothing is known by name to a random CLIP: expect no unseen class.
_base_ = "../otseg/voc_512.py"

crop_size = (128, 128)
scale = (512, 128)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]

tta_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=(int(512 * r), int(128 * r)), keep_ratio=True)
                for r in (0.75, 1.0, 1.25)
            ],
            [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]

model = dict(
    clip=dict(
        _delete_=True,
        model=dict(
            embed_dim=64,
            vision_cfg=dict(image_size=128, patch_size=16, width=96, layers=4, head_width=24),
            text_cfg=dict(width=64, heads=2, layers=2, context_length=77, vocab_size=49408),
        ),
        pretrained=None,
    ),
    data_preprocessor=dict(size=crop_size),
    neck=dict(identity_init=True),
    decode_head=dict(seen_bias=0.0),
    test_cfg=dict(crop_size=crop_size, stride=(96, 96)),
)
train_dataloader = dict(num_workers=1, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=2e-4))  # times 10 in all that trains here
param_scheduler = dict(warmup_iters=20)
train_cfg = dict(max_iters=200, val_interval=100)
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=20))
