# OTSeg over the tiny CLIP of the shapes benchmark: 20 classes, 5 of them unseen.
_base_ = "../../shapes/clip/shapes_clip.py"

# Tools and the page say it, since photographs mean nothing to such a model.
about = "This model and its small CLIP know drawn scenes of colored shapes only."
model = dict(
    type="CLIPEncoderDecoder",  # mmseg's EncoderDecoder; hands `clip` and `split` to its parts
    clip={{_base_.clip}},
    split=dict(
        classes=[
            *("red circle", "red square", "red triangle", "red cross"),
            *("green circle", "green square", "green triangle", "green cross"),
            *("blue circle", "blue square", "blue triangle", "blue cross"),
            *("yellow circle", "yellow square", "yellow triangle", "yellow cross"),
            *("purple circle", "purple square", "purple triangle", "purple cross"),
        ],
        unseen=["red cross", "green square", "blue triangle", "yellow circle", "purple square"],
    ),
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean={{_base_.preprocess.mean}},
        std={{_base_.preprocess.std}},
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=({{_base_.clip.model.vision_cfg.image_size}},) * 2,
    ),
    backbone=dict(
        type="CLIPBackbone",
        # The run is too short to overfit: no dropout here or in the head (chosen on val).
        visual_prompts=dict(num_tokens=4, dropout=0.0),
    ),
    neck=dict(
        type="DLFANeck",
        identity_init=True,  # the run is short
        text=dict(type="TemplatePrompts", templates="otseg6"),
    ),
    decode_head=dict(
        type="MPSAHead",
        dropout=0.0,
        predict_from="decoder",
        loss_decode=dict(type="FocalDiceLoss"),
    ),
    test_cfg=dict(mode="whole"),
)
