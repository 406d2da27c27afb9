"""A small server of the open inference protocol (KServe and Triton v2) on ONNX Runtime; no torch.

One process, two listeners: clients ask on the inference address, and the guard loads and unloads on
the management address. It starts empty, and loads only files whose digest a signed release names.

Protocol: https://github.com/kserve/open-inference-protocol (specification/protocol)
"""
