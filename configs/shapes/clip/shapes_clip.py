# The tiny CLIP of the shapes benchmark, and how tools/shapes/pretrain_clip.py trains it.
clip = dict(
    model=dict(
        embed_dim=64,
        quick_gelu=False,
        vision_cfg=dict(image_size=64, patch_size=8, width=128, layers=4, head_width=64),
        text_cfg=dict(context_length=32, vocab_size=49408, width=64, heads=1, layers=2),
    ),
    pretrained="{{ fileDirname }}/shapes_clip.safetensors",
)
# Images are RGB in 0..255, normalized as everywhere in the package.
preprocess = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
pretrain = dict(
    seed=0,
    steps=12000,
    batch_size=32,
    single_steps=1500,  # one large object per image, text tower frozen
    lr=6e-4,
    warmup=200,
    weight_decay=0.05,
    noun_weight=0.0,  # weight of the noun-pooled term; 0 is plain CLIP
    noun_beta=10.0,
)
