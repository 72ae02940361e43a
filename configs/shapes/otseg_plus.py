# OTSeg+: trained exactly as OTSeg; only the prediction differs, from both maps.
_base_ = "./otseg.py"

model = dict(decode_head=dict(predict_from="ensemble"))
