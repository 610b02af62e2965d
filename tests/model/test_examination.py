"""What is examined, what is examined in another form, and what is refused, and why."""

import random
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from shapprune.errors import InputError
from shapprune.model.adapted import Adapted, unwrap
from shapprune.model.classifier import Classifier, in_channels_last
from shapprune.model.examination import examine
from shapprune.model.inference import evaluating, in_full_precision
from shapprune.model.masking import zero_neurons
from shapprune.model.neurons import find_neurons
from toys import BUILDERS, CLASSES, build, random_images, seeded, snapshot, unchanged
from toys import backdoored_net as net
from toys import toy_images as toys

IMAGES, LABELS = toys()

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning",
    "ignore:.*torch.ao:DeprecationWarning",
    "ignore:.*quantize_per_tensor",
)


class Does(nn.Module):
    """A network with something before it, and something after it."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda x: x,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network or net()
        self.before, self.after = before, after

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.network(self.before(images)))


def gradient(model: nn.Module, images: Tensor) -> Tensor:
    """Of a sum in which each logit counts differently."""
    images = images.clone().requires_grad_()
    logits = model(images)
    (slope,) = torch.autograd.grad((logits * torch.arange(logits.shape[1])).sum(), images)
    return slope


def refused(model: nn.Module, message: str, images: Tensor = IMAGES, labels: Tensor = LABELS):
    """One line, on the point, and the model and the images as they were."""
    before, given = snapshot(model), images.clone()
    with pytest.raises(InputError, match=rf"(?s)\A[^\n]*{message}[^\n]*\Z"):
        examine(model, images, labels=labels)
    assert unchanged(model, before)
    assert torch.equal(images, given)


def adapted(model: nn.Module, **ways: object) -> Adapted:
    """What comes back, which is changed in these ways and no others."""
    before, given = snapshot(model), IMAGES.clone()
    found = examine(model, IMAGES, labels=LABELS)
    assert unchanged(model, before)
    assert torch.equal(IMAGES, given)
    assert isinstance(found, Adapted)
    plain = {"clones": False, "straight_through": False, "outputs": "logits"}
    assert {name: getattr(found, name) for name in plain} == plain | ways
    return found


# Networks as they should be


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_ordinary_networks_pass_as_they_are(name, dtype):
    model = build(name).to(dtype)
    before = snapshot(model)
    for images in (random_images(10), torch.rand(1, 3, 8, 8), random_images(10).to(dtype)):
        assert examine(model, images) is model
    assert unchanged(model, before)


@pytest.mark.parametrize(
    "activation",
    [
        *(nn.LeakyReLU(), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.ReLU6(), nn.PReLU()),
        *(nn.Tanh(), nn.Sigmoid(), nn.Softplus(), nn.Dropout(0.5), nn.InstanceNorm2d(8)),
    ],
    ids=lambda module: type(module).__name__,
)
@pytest.mark.parametrize("scale", [0.01, 1, 1000])
def test_activations_and_scales_pass(activation, scale):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), activation, nn.AdaptiveMaxPool2d(2), nn.Flatten(), nn.Linear(32, 5)
    ).train()  # examined in eval mode, and left in this one
    model[-1].weight.data *= scale
    assert examine(model, random_images(10)) is model
    assert model.training


def test_layers_left_out_at_random_in_training_pass():
    class Depth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            if not self.training or torch.rand(()) > 0.5:
                x = x + F.gelu(self.block(x))
            return self.head(x.mean((2, 3)))

    model = Depth()
    assert examine(model, random_images(10)) is model


def test_a_gradient_of_zero_on_one_image_passes():
    images = IMAGES.clone()
    images[3] = 0  # no unit of the first layer is on, or leaves its kink
    model = Does(lambda x: F.relu(x - 0.05))
    assert not gradient(model, images)[3].any()
    assert examine(model, images, labels=LABELS) is model


def test_logarithms_of_probabilities_are_logits():
    model = Does(after=lambda logits: logits.log_softmax(1))
    assert examine(model, IMAGES, labels=LABELS) is model


def test_one_answer_for_images_of_two_classes_passes():
    model = net()
    model.head.bias.data[2] += 1000
    assert examine(model, IMAGES, labels=LABELS.clamp(max=1)) is model


def test_one_answer_for_noise_passes():
    model = net()
    model.head.bias.data[2] += 1000
    assert examine(model, torch.rand(10, 3, 12, 12), labels=None) is model


def test_small_positive_logits_are_not_taken_for_sigmoids():
    model = Does(after=lambda logits: logits.tanh() / 20 + 0.3)
    assert examine(model, IMAGES, labels=LABELS) is model


def test_nothing_is_drawn_from_the_global_generators():
    torch.manual_seed(3), random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3), random.seed(3)
    examine(net(), IMAGES, labels=LABELS)
    assert (torch.rand(1), random.random()) == expected


# No gradient, or a wrong one


def not_differentiable(images: Tensor) -> Tensor:
    return torch.from_numpy(images.detach().numpy().copy())


CUT = "no gradient of the logits reaches the image"


@pytest.mark.parametrize(
    "before",
    [
        lambda x: x.detach(),
        lambda x: x.data,
        not_differentiable,
        lambda x: x.numpy().copy(),
        lambda x: x > 0.3,
    ],
    ids=["detach", "data", "numpy", "numpy-fails", "threshold"],
)
def test_refuses_a_forward_that_cuts_the_gradient(before):
    refused(Does(lambda x: torch.as_tensor(before(x)).float()), CUT)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_refuses_a_forward_without_gradients(mode):
    model = Does()
    model.forward = mode()(model.forward)
    refused(model, CUT)


def test_refuses_a_quantised_model():
    quantised = torch.ao.quantization.quantize_dynamic(build("mlp"), {nn.Linear})
    with pytest.raises(InputError, match=f"{CUT}.* quantised"):
        examine(quantised, random_images(10))


def test_refuses_answers_without_scores():
    hard = Does(after=lambda x: F.one_hot(x.argmax(1), CLASSES).float())
    refused(hard, CUT)


ZERO = "depend on the image, but their gradient is zero everywhere: take what rounds"


@pytest.mark.parametrize(
    "before",
    [lambda x: (x > 0.3) + 0 * x, lambda x: (x - 0.3).sign(), lambda x: (x + (x > 0.3)) - x],
    ids=["threshold", "sign", "cancelled"],
)
def test_refuses_a_gradient_of_zero(before):
    refused(Does(before), ZERO)


def test_refuses_rounding_that_is_no_small_change():
    refused(Does(lambda x: (x * 1.4).round()), ZERO)  # black and white


def test_refuses_a_gradient_of_something_else():
    mostly = Does(lambda x: 0.9 * x.detach() + 0.1 * x)
    refused(mostly, "is not that of the answers: a small step along it changes them by 10 of")
    against = Does(lambda x: 2 * x.detach() - x)
    refused(against, "is not that of the answers: a small step along it changes them by -1 of")


def test_refuses_other_logits_when_a_gradient_is_asked_for():
    refused(Does(lambda x: x * 0.5 if x.requires_grad else x), "other logits when a gradient is")


def test_refuses_a_gradient_that_is_not_finite():
    refused(Does(lambda x: x + (0 * x).sqrt()), "gradient of the logits is NaN or infinite")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_refuses_to_work_where_gradients_are_off(mode):
    with mode(), pytest.raises(InputError, match="call from outside of it"):
        examine(net(), IMAGES, labels=LABELS)


def test_refuses_weights_made_in_inference_mode():
    with torch.inference_mode():
        model = net()
    with pytest.raises(InputError, match=r"'conv1.weight', .* made under torch.inference_mode"):
        examine(model, IMAGES, labels=LABELS)


# Rounding of the images: straight through


def round_in_place(x: Tensor) -> Tensor:
    x = x * 255
    x.round_()
    return x / 255


@pytest.mark.parametrize(
    "before",
    [
        lambda x: (x * 255).round() / 255,
        lambda x: torch.round(x, decimals=2),
        lambda x: torch.floor(input=x * 255) / 255,
        lambda x: x.mul(255).byte().float() / 255,
        lambda x: (x * 255).to(torch.uint8) / 255,
        lambda x: (x * 255).to(device="cpu", dtype=torch.int32).to(x) / 255,
        lambda x: (x * 255).type(torch.int64) / 255,
        lambda x: (x * 255).type_as(torch.ones(1, dtype=torch.uint8)) / 255,
        lambda x: torch.as_tensor(x * 255, dtype=torch.uint8) / 255,
        lambda x: x * 255 // 1 / 255,
        lambda x: torch.div(x, 1 / 255, rounding_mode="floor") / 255,
        lambda x: x - x % (1 / 255),
        lambda x: torch.quantize_per_tensor(x, 1 / 255, 0, torch.quint8).dequantize(),
        round_in_place,
        lambda x: (x * 255).floor_divide_(1) / 255,
    ],
    ids=[
        *("round", "decimals", "floor", "byte", "uint8", "int32", "type", "type_as", "as_tensor"),
        *("floor-division", "div", "remainder", "quantised", "in-place", "floor-division-in-place"),
    ],
)
def test_rounded_images_are_examined_straight_through(before):
    model = Does(before)
    found = adapted(model, straight_through=True)
    with torch.no_grad():
        assert torch.equal(found(IMAGES), model(IMAGES))
        rounded = before(IMAGES.clone())
    assert torch.allclose(found(IMAGES.clone().requires_grad_()), model(IMAGES), atol=1e-4)
    assert gradient(net(), rounded).any()
    assert torch.allclose(gradient(found, IMAGES), gradient(net(), rounded), rtol=1e-3, atol=1e-4)


def test_rounded_answers_are_examined_straight_through():
    found = adapted(Does(after=lambda logits: (logits * 4).round() / 4), straight_through=True)
    assert torch.allclose(gradient(found, IMAGES), gradient(net(), IMAGES))


# Outputs


def test_refuses_constant_outputs():
    model = net()
    model.head.weight.data.zero_()
    model.head.bias.data[3] = 1
    refused(model, "same for all images and for noise, and the answer is class 3: check the weig")


def test_refuses_constant_probabilities():
    model = Does(after=lambda x: (0 * x + torch.arange(CLASSES)).softmax(1))
    refused(model, f"same for all images and for noise, and the answer is class {CLASSES - 1}")


def test_refuses_one_answer_for_images_of_all_classes():
    model = net()
    model.head.bias.data[2] += 1000
    refused(model, "gives all 16 images, of 8 classes, the same answer, class 2, .* mean and std")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_outputs_that_are_not_finite_on_one_image(value):
    def after(logits: Tensor) -> Tensor:
        return torch.where(logits[:, 7:8] > 4, value, logits)  # of images of class 7

    refused(Does(after=after), r"NaN or infinite logits for image 7 \(2 of 16 images\)")


def test_refuses_outputs_that_are_not_finite_on_noise():
    bright = lambda x: torch.where(x.mean((1, 2, 3), keepdim=True) > 0.4, torch.nan, x)  # noqa: E731
    assert net()(bright(IMAGES)).isfinite().all()
    refused(Does(bright), "NaN or infinite logits for noise")


@pytest.mark.parametrize(
    "softmax",
    [
        nn.Softmax(dim=1),
        lambda x: F.softmax(x, dim=-1),
        lambda x: x.softmax(1),
        lambda x: torch.softmax(x, 1),
        lambda x: F.softmax(input=x, dim=1, dtype=torch.float32),
    ],
    ids=["module", "functional", "method", "torch", "keywords"],
)
def test_of_probabilities_the_logarithms_are_examined(softmax):
    found = adapted(Does(after=lambda x: softmax(1000 * x)), outputs="probabilities")
    expected = Does(after=lambda x: (1000 * x).log_softmax(1))
    assert torch.equal(found(IMAGES), expected(IMAGES))
    # Where the probabilities are 0 and 1 and their own gradient is zero.
    assert (gradient(found, IMAGES).flatten(1).abs().sum(1) > 0).all()


@pytest.mark.parametrize(
    "after",
    [lambda p: p.clone(), lambda p: (p + p.flip(0).flip(0)) / 2, lambda p: p / p.sum(1)[:, None]],
    ids=["clone", "mean", "divided"],
)
def test_of_probabilities_made_otherwise_too(after):
    found = adapted(Does(after=lambda x: after((x / 9).softmax(1))), outputs="probabilities")
    expected = Does(after=lambda x: (x / 9).log_softmax(1))
    assert torch.allclose(found(IMAGES), expected(IMAGES), atol=1e-4)
    assert torch.allclose(gradient(found, IMAGES), gradient(expected, IMAGES), atol=1e-2)


def test_refuses_probabilities_that_saturate():
    model = Does(after=lambda x: (x.round() * 1e6).softmax(1) * 1.0)
    refused(model, "saturates")


def test_attention_is_not_taken_for_probabilities():
    attends = Does(after=lambda x: x.softmax(1) * 0 + x)
    assert examine(attends, IMAGES, labels=LABELS) is attends


@pytest.mark.parametrize("sigmoid", [torch.sigmoid, F.sigmoid, nn.Sigmoid(), torch.special.expit])
def test_of_sigmoids_the_logits_are_examined(sigmoid):
    found = adapted(Does(after=lambda x: sigmoid(100 * x)), outputs="sigmoids")
    assert torch.equal(found(IMAGES), 100 * net()(IMAGES))


def test_refuses_what_looks_like_sigmoids():
    refused(Does(after=lambda x: (x - 3).tanh() / 2 + 0.5), "as after a sigmoid: return the logits")


# Batches, modes and chance


class Stubborn(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


def stubborn_net() -> nn.Module:
    model = net()
    model.bn2.__class__ = Stubborn
    return model.train()


def test_refuses_a_batch_norm_that_stays_in_training_mode():
    refused(stubborn_net(), r"changes 'bn2.running_mean', .* \('bn2' stayed in training mode\)")


def test_refuses_a_batch_norm_that_is_told_to_train():
    model = Does(lambda x: F.batch_norm(x, None, None, training=True) / 4 + 0.3)
    refused(model, "depends on the other images of the batch, as with a batch norm in training")
    model = Does(after=lambda x: F.batch_norm(x, None, None, training=True))
    refused(model, "fails on one image alone: .*Expected more than 1 value per channel")


def test_refuses_a_batch_norm_without_statistics():
    model = net()
    model.bn1.running_mean = model.bn1.running_var = None
    refused(model, r"depends on the other images of the batch \('bn1' has no running statistics")


def test_refuses_statistics_that_move():
    model = net()

    def update(norm: nn.Module, inputs: object, output: Tensor) -> None:
        norm.running_mean.add_(1e-5 * output.mean((0, 2, 3)))

    model.bn1.register_forward_hook(update)
    refused(model, "a forward changes 'bn1.running_mean' although eval")


@pytest.mark.parametrize(
    "chance",
    [
        lambda x: F.dropout(x, 0.2),
        lambda x: x + 0.1 * torch.randn_like(x),
        lambda x: x.roll(int(torch.randint(12, ())), 3),
    ],
    ids=["dropout", "noise", "shift"],
)
def test_refuses_chance(chance):
    refused(
        Does(chance), "two passes of the same images give different logits: take what is random"
    )


def test_names_the_dropout_that_stays_in_training_mode():
    model = Does(network=nn.Sequential(nn.Dropout(0.5), net()))
    model.network[0].train = lambda mode=True: model.network[0]
    refused(model, r"different logits \('network.0' stayed in training mode\)")


def test_refuses_a_model_that_has_no_eval_mode():
    model = net()

    def eval(self: nn.Module) -> nn.Module:
        raise NotImplementedError("no eval")

    model.eval = eval.__get__(model)
    refused(model, "cannot be set to eval mode, .*NotImplementedError: no eval")


def only(count: int) -> Callable[[Tensor], Tensor]:
    def check(images: Tensor) -> Tensor:
        assert len(images) == count, f"takes\n{count}"
        return images

    return check


def test_refuses_one_image_at_a_time():
    refused(Does(only(1)), r"fails on 16 images at once: .* any size.*AssertionError: takes 1")


def test_refuses_batches_of_one_size():
    refused(Does(lambda x: x if len(x) > 1 else x[0]), "fails on one image alone: .* any size")


def test_refuses_one_row_for_a_batch():
    refused(Does(after=lambda x: x.mean(0, keepdim=True)), r"returns \(1, 8\) for 16 images")


@pytest.mark.parametrize("result", [(1, 2), None])
def test_refuses_what_is_no_tensor(result):
    refused(Does(after=lambda x: result), "returns (tuple|NoneType) for 16 images")


# Models that write into their images


def in_place(x: Tensor) -> Tensor:
    x.sub_(0.5).div_(0.5)
    return x


def data_in_place(x: Tensor) -> Tensor:
    x.data.mul_(0.5)
    return x


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (in_place, lambda x: (x - 0.5) / 0.5),
        (data_in_place, lambda x: x * 0.5),
        (F.relu_, lambda x: x),
    ],
    ids=["normalises", "data", "relu"],
)
def test_a_model_that_writes_into_its_images_gets_copies(write, value):
    shift = net()
    shift.bn1.bias.data += 0.6  # so that normalised images have different answers
    model = Does(lambda x: write(x), network=shift)
    found = adapted(model, clones=True)
    images = IMAGES.clone()
    assert torch.equal(found(images), shift(value(IMAGES)))
    assert torch.equal(images, IMAGES)
    assert gradient(found, IMAGES).any()


def test_all_at_once():
    def before(x: Tensor) -> Tensor:
        return x.mul_(255).round() / 255

    found = adapted(
        Does(before, lambda x: x.softmax(1)),
        **{"clones": True, "straight_through": True, "outputs": "probabilities"},
    )
    rounded = (IMAGES * 255).round() / 255
    expected = Does(after=lambda x: x.log_softmax(1))
    assert torch.allclose(found(IMAGES), expected(rounded), atol=1e-5)
    assert torch.allclose(gradient(found, IMAGES), gradient(expected, rounded), atol=1e-2)
    assert examine(found, IMAGES, labels=LABELS) is found


# TorchScript


def scripted(kind: str, model: nn.Module) -> nn.Module:
    with torch.no_grad():
        match kind:
            case "script":
                return torch.jit.script(model)
            case "trace":
                return torch.jit.trace(model, random_images(2))
            case _:
                return torch.jit.freeze(torch.jit.script(model))


@pytest.mark.parametrize("kind", ["script", "trace", "frozen"])
def test_torchscript_is_examined(kind):
    model = build("conv-bn")
    script = scripted(kind, model)
    found = examine(script, random_images(10))
    assert torch.allclose(found(random_images(3)), model(random_images(3)), atol=1e-5)
    assert torch.allclose(
        gradient(found, random_images(3)), gradient(model, random_images(3)), atol=1e-5
    )
    assert unwrap(found) is script
    fast = in_channels_last(found, random_images(1))
    with evaluating(fast):
        assert torch.allclose(fast(random_images(3)), model(random_images(3)), atol=1e-5)


def test_torchscript_of_half_precision_is_worked_on_in_float32():
    whole = in_full_precision(torch.jit.script(build("conv-bn").bfloat16()))
    found = examine(whole, random_images(10))
    assert found(random_images(3)).dtype == torch.float32


def test_torchscript_with_a_softmax():
    model = nn.Sequential(*build("conv-bn"), nn.Softmax(1)).eval()
    script = torch.jit.script(model)
    found = examine(script, random_images(10))
    assert unwrap(found) is script
    assert torch.allclose(found(random_images(3)), model(random_images(3)).log(), atol=1e-4)


# What a repair needs


def test_an_adapted_model_has_the_names_of_the_model():
    model = Classifier(nn.Sequential(net(), nn.Softmax(1)), mean=0.25, std=0.5)
    images = IMAGES / 2 + 0.25
    found = examine(model, images, labels=LABELS)
    assert isinstance(found, Adapted)
    assert find_neurons(found, images) == find_neurons(model, images)
    assert list(found.state_dict()) == list(model.state_dict())
    assert dict(found.named_parameters())["network.0.head.bias"] is model.network[0].head.bias
    assert dict(found.named_buffers()).keys() == dict(model.named_buffers()).keys()


def test_a_repaired_copy_is_of_the_models_own_class():
    model = Classifier(nn.Sequential(net(), nn.Softmax(1)), mean=0.25, std=0.5)
    images = IMAGES / 2 + 0.25
    before = snapshot(model)
    found = examine(model, images, labels=LABELS)
    copy = deepcopy(found)
    zero_neurons(copy, find_neurons(copy, images), [4])
    copy.network[0].head.bias.data[0] += 1
    repaired = unwrap(copy)
    assert unchanged(model, before)
    assert type(repaired) is Classifier
    assert list(repaired.state_dict()) == list(model.state_dict())
    assert not repaired.network[0].bn1.weight[4]
    assert torch.allclose(repaired(images).log(), copy(images), atol=1e-5)
    assert not torch.allclose(repaired(images), model(images))


def test_an_adapted_model_has_training_modes_of_its_own():
    class Noisy(Does):
        def forward(self, images: Tensor) -> Tensor:
            images.clamp_(0, 1)
            return self.network(F.dropout(images, 0.5, self.training))

    model = Noisy().train()
    found = examine(model, IMAGES, labels=LABELS)
    assert model.training
    found.eval()
    assert torch.equal(found(IMAGES), found(IMAGES))
    found.train()
    assert not torch.equal(found(IMAGES), found(IMAGES))


def test_stages_leave_the_model_in_an_adapted_one_as_it_was():
    model = Does(lambda x: F.relu_(x)).train()
    found = examine(model, IMAGES, labels=LABELS)
    before = snapshot(model)
    with evaluating(found):
        found(IMAGES)
    assert unchanged(model, before)


def test_a_layer_put_into_a_copy_is_in_the_model_inside():
    copy = deepcopy(examine(Does(lambda x: F.relu_(x)), IMAGES, labels=LABELS))
    copy.network = nn.Flatten()
    assert unwrap(copy).network is copy.network
    assert torch.equal(copy(IMAGES), IMAGES.flatten(1))


def test_unwrap_gives_other_models_back():
    model = net()
    assert unwrap(model) is model


def test_noise_of_recovery_will_do():
    assert isinstance(examine(net(), torch.rand(1, 3, 12, 12, generator=seeded())), nn.Module)
