# OTSeg over CLIP ViT-B/16. The weights come from open_clip (tag "openai"); to take them from a
# file, set the environment variable CLIP_WEIGHTS to its path. OpenAI's weights in a .safetensors
# or .bin file need clip=dict(quick_gelu=True) as well: such a file does not say it.
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
    backbone=dict(
        type="CLIPBackbone",
        visual_prompts=dict(num_tokens=10),
        drop_path_rate=0.1,
    ),
    neck=dict(
        type="DLFANeck",
        text=dict(type="TemplatePrompts", templates="otseg8"),
    ),
    decode_head=dict(
        type="MPSAHead",
        predict_from="ensemble",  # OTSeg+; "decoder" is OTSeg
        loss_decode=dict(type="FocalDiceLoss"),
    ),
    test_cfg=dict(mode="slide", crop_size=(512, 512), stride=(426, 426)),
)
