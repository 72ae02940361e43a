# ZegOT over CLIP ViT-B/16, which stays frozen as a whole. The weights come from open_clip (tag
# "openai"); to take them from a file, set the environment variable CLIP_WEIGHTS to its path.
# OpenAI's weights in a .safetensors or .bin file need clip=dict(quick_gelu=True) as well: such a
# file does not say it.
model = dict(
    type="CLIPEncoderDecoder",  # mmseg's EncoderDecoder; hands `clip` and `split` to its parts
    clip=dict(model="ViT-B-16", pretrained="{{$CLIP_WEIGHTS:openai}}"),
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        # ImageNet's, as in the papers' code; mean=None, std=None takes those CLIP was trained with.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(512, 512),
    ),
    backbone=dict(type="CLIPBackbone", out_indices=(-5, -3, -1), project=False),
    neck=dict(
        type="DLFANeck",
        identity_init=True,
        text=dict(type="LearnablePrompts", num_prompts=6, num_tokens=8, position="end"),
    ),
    decode_head=dict(
        type="MPSAHead",
        decoder_layers=0,
        predict_from="score",
        loss_decode=dict(type="FocalDiceLoss"),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(426, 426)),
)
