"""Networks of timm and torchvision, one a family: names with spaces between."""

TIMM = (
    "resnet18 resnet50d seresnet18 ecaresnet26t resnext26ts skresnet18 res2net50_14w_8s "
    "resnest14d resnetv2_50 resnetv2_50d_gn bat_resnext26ts botnet26t_256 halonet26t "
    "lambda_resnet26t gcresnext26ts regnetx_002 regnety_002 densenet121 vgg11_bn xception41 "
    "inception_v3 inception_v4 inception_resnet_v2 inception_next_tiny dpn48b dla34 "
    "ese_vovnet19b_dw hrnet_w18_small cspresnet50 cspdarknet53 darknet53 selecsls42b "
    "hardcorenas_a rexnet_100 repvgg_a0 mobileone_s0 efficientnet_b0 tf_efficientnetv2_b0 "
    "mnasnet_050 mobilenetv2_050 mobilenetv3_small_100 mobilenetv4_conv_small fbnetc_100 "
    "spnasnet_100 lcnet_050 tinynet_e ghostnet_050 ghostnetv2_100 tresnet_m nfnet_f0 "
    "dm_nfnet_f0 nf_regnet_b0 gernet_s convnext_atto convnextv2_atto convmixer_768_32 "
    "edgenext_xx_small fastvit_t8 focalnet_tiny_srf hgnet_tiny hgnetv2_b0 repghostnet_050 "
    "repvit_m0_9 starnet_s1 poolformer_s12 caformer_s18 mambaout_femto rdnet_tiny "
    "vit_tiny_patch16_224 deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 "
    "beit_base_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224 xcit_nano_12_p16_224 "
    "crossvit_tiny_240 convit_tiny coat_lite_tiny levit_128s pit_ti_224 pvt_v2_b0 "
    "twins_svt_small nest_tiny swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 "
    "swin_s3_tiny_224 maxvit_tiny_tf_224 coatnet_nano_rw_224 mvitv2_tiny mobilevit_xxs "
    "mobilevitv2_050 davit_tiny gcvit_xxtiny efficientformer_l1 efficientformerv2_s0 "
    "efficientvit_b0 efficientvit_m0 tiny_vit_5m_224 hiera_tiny_224 mixer_s32_224 resmlp_12_224 "
    "gmlp_ti16_224 visformer_tiny volo_d1_224 sequencer2d_s nextvit_small shvit_s1 "
    "swiftformer_xs tnt_s_legacy_patch16_224 flexivit_small vit_base_patch16_clip_224 "
    "vit_relpos_small_patch16_224 sehalonet33ts csatv2 "
)

TORCHVISION = (
    "alexnet vgg11 resnet18 resnext50_32x4d wide_resnet50_2 squeezenet1_1 densenet121 "
    "inception_v3 googlenet shufflenet_v2_x0_5 mobilenet_v2 mobilenet_v3_small mnasnet0_5 "
    "regnet_y_400mf efficientnet_b0 convnext_tiny vit_b_32 swin_t swin_v2_t maxvit_t "
)
