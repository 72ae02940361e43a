# As otseg_512.py with a small CLIP of random weights, which needs no network and learns nothing
# useful: to go through the steps of README.md within minutes, without a GPU.
_base_ = "./otseg_512.py"

model = dict(
    clip=dict(
        _delete_=True,
        model=dict(
            embed_dim=64,
            vision_cfg=dict(image_size=64, patch_size=16, width=64, layers=4, head_width=16),
            text_cfg=dict(width=64, heads=4, layers=2),
        ),
        pretrained=None,
    ),
)
train_dataloader = dict(batch_size=2)
train_cfg = dict(max_iters=60, val_interval=60)
default_hooks = dict(checkpoint=dict(interval=60))
