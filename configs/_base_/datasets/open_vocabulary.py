# What the data sets of configs/open_vocabulary have in common. Their class names come from the
# model's split, how images are resized from the test pipeline of the model's config.
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="ZeroShotDataset",
        dataset=dict(
            type="BaseSegDataset", img_suffix=".jpg", seg_map_suffix=".png", test_mode=True
        ),
    ),
)
test_evaluator = dict(type="ZeroShotIoUMetric")
