# OTSeg on Pascal VOC: softmax cross-attention in the decoder, Sinkhorn in the score map.
_base_ = "../otseg/voc_512.py"

model = dict(
    decode_head=dict(transport="softmax", score_transport="sinkhorn"),
)
