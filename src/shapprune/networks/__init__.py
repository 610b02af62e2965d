"""Networks: those of the paper under their own names, and those of others' files."""

from shapprune.networks.paper import resnet18, resnet34, table3_vgg, vgg11, vgg16_bn, vgg_face

__all__ = ["resnet18", "resnet34", "table3_vgg", "vgg11", "vgg16_bn", "vgg_face"]
