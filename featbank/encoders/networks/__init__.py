"""Frozen networks of timm, open_clip, torchvision and published checkpoints behind the encoder interface.

Importing the package loads none of those libraries; building an encoder does.
"""
