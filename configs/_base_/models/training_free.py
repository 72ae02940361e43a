# CLIP ViT-B/16 as it was trained, with NACLIP's attention in its last block: nothing is trained.
# The weights come from open_clip (tag "openai"); to take them from a file, set the environment
# variable CLIP_WEIGHTS to its path. OpenAI's weights in a .safetensors or .bin file need
# clip=dict(quick_gelu=True) as well: such a file does not say it.
protocol = "training_free"  # names and thresholds of configs/open_vocabulary
model = dict(
    type="CLIPEncoderDecoder",  # mmseg's EncoderDecoder; hands `clip` and `split` to its parts
    clip=dict(model="ViT-B-16", pretrained="{{$CLIP_WEIGHTS:openai}}"),
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=None,  # those that CLIP was trained with
        std=None,
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type="CLIPBackbone",
        local_attention="naclip",  # or "sclip", "kk"; None is CLIP's own
        position_interpolation="bicubic",
    ),
    neck=dict(
        type="DLFANeck",
        relationship_descriptor=False,
        # `templates` may also be a JSON or YAML file with sentences for each name.
        text=dict(type="TemplatePrompts", templates="imagenet", average=True),
    ),
    decode_head=dict(type="SimilarityHead", scale=40.0),
    # `refine` moves the edges of the class maps to edges of the image (PAMR).
    test_cfg=dict(mode="slide", crop_size=(224, 224), stride=(112, 112), refine=True),
)
