# Multi-Prompts Sinkhorn score map without the decoder.
_base_ = "./otseg.py"

model = dict(decode_head=dict(decoder_layers=0, predict_from="score"))
