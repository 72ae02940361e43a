# CLIP-RC's idea on Pascal VOC, inductive. The folder of clip_rc.py must be on PYTHONPATH.
_base_ = "../../../configs/zegclip/voc_512.py"
custom_imports = dict(imports=["mmseg_otseg", "clip_rc"])

model = dict(
    backbone=dict(type="RegionBackbone", regions=2),
    neck=dict(type="RegionNeck"),
    decode_head=dict(type="RegionHead"),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(region_tokens=dict(lr_mult=10.0))))
