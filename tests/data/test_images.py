"""The images of a recording, wherever they lie, and the lab's latents."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from nblib.core.errors import BadInput, MissingInput
from nblib.core.params import Recipe, SimulateSettings
from nblib.data import allen, images
from nblib.simulate import allen as simulate
from nblib.simulate import scene_oracle


@pytest.fixture
def shown():
    return np.random.default_rng(0).integers(0, 256, (4, 128, 160), dtype=np.uint8)


def recipe(**given):
    return Recipe(recipe="r", recordings=["a"], **given)


def test_simulated_images_are_the_generators(home):
    small = recipe(simulate=SimulateSettings(n_units=4, n_scenes=3, n_repeats=2))
    found = images.open_images(small, "a", np.arange(3))
    path = simulate.make(small.simulate, "a")
    truth = scene_oracle.read_truth(simulate.truth_path(path))
    np.testing.assert_allclose(found.pixels * 255, truth.templates, atol=1e-3)
    with pytest.raises(BadInput, match="no image of label 7"):
        images.open_images(small, "a", np.array([0, 7]))


def test_allen_templates_come_from_the_cache(home, shown):
    for number in (2, 5):
        allen.scene_place(number).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shown[0]).save(allen.scene_place(number))
    found = images.open_images(recipe(source="allen"), "a", np.array([2, 5]))
    assert found.label.tolist() == [2, 5] and found.pixels.shape == (2, 64, 80)
    assert found.rows(np.array([5, 2, 5])).tolist() == [1, 0, 1]


def test_a_recording_without_images_says_so():
    with pytest.raises(MissingInput, match="holds no images"):
        images.open_images(recipe(source="nwb", path="/x.nwb"), "a", np.array([0]))


def test_images_are_reduced_to_the_mean_of_their_parts(shown):
    small = images.reduced(shown)
    expected = shown.reshape(4, 64, 2, 80, 2).mean(axis=(2, 4)) / 255
    np.testing.assert_allclose(small, expected, atol=1e-4)


def test_a_folder_or_an_array_of_your_own(tmp_path, shown):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for label in (3, 11):
        Image.fromarray(shown[label % 4]).save(folder / f"scene_{label:03d}.png")
    (folder / "notes.txt").write_text("")
    found = images.open_images(recipe(source="nwb", path="/x"), "a", np.array([11]), str(folder))
    assert found.label.tolist() == [3, 11]
    np.save(tmp_path / "all.npy", shown)
    array = images.open_images(
        recipe(source="nwb", path="/x"), "a", np.array([3]), f"{tmp_path}/all.npy"
    )
    np.testing.assert_allclose(array.pixels[3], found.pixels[1], atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda p: None, "neither a folder nor"),
        (lambda p: p.mkdir(), "no picture whose name ends"),
        (lambda p: (p.mkdir(), (p / "1.png").write_bytes(b"x")), "not readable as an image"),
        (lambda p: (p.mkdir(), (p / "a1.png").touch(), (p / "b01.png").touch()), "both of label"),
    ],
)
def test_a_bad_folder_is_named(tmp_path, spoil, says):
    spoil(tmp_path / "pictures")
    with pytest.raises((BadInput, MissingInput), match=says):
        images.open_images(
            recipe(source="nwb", path="/x"), "a", np.array([1]), str(tmp_path / "pictures")
        )


def test_an_array_that_is_no_pictures(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4)))
    with pytest.raises(BadInput, match="uint8"):
        images.open_images(recipe(source="nwb", path="/x"), "a", np.array([0]), f"{tmp_path}/x.npy")


def test_classes_that_are_no_numbers():
    with pytest.raises(BadInput, match="not numbers of images"):
        images.scene_labels(np.array(["cat", "dog"]), "recording 'a'", "")
    assert images.scene_labels(np.array([-1, 0, 4]), "a", "-1").tolist() == [0, 4]
    assert images.scene_labels(np.array([-1, 0, 4]), "a", "").tolist() == [-1, 0, 4]


# --- the lab's latents ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        lambda z: z,
        lambda z: {"latents": z},
        lambda z: list(z),
        lambda z: [row[None] for row in z],
        lambda z: z.reshape(5, 2, 3),
    ],
    ids=["tensor", "dict", "list", "list_of_rows", "more_axes"],
)
def test_lab_latents_in_any_of_their_shapes(tmp_path, content):
    z = torch.arange(30.0).reshape(5, 6)
    torch.save(content(z), tmp_path / "z.pt")
    assert images.load_lab_latents(tmp_path / "z.pt", 5).tolist() == z.tolist()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (torch.zeros(4, 6), "latents of 5 images"),
        (torch.full((5, 2), float("nan")), "NaN"),
        ("words", "latents of 5 images"),
        (SimpleNamespace(x=1), "not readable as tensors"),
        ([torch.zeros(2), torch.zeros(3)], "latents of 5 images"),
    ],
    ids=["other_number", "nan", "text", "object", "ragged"],
)
def test_other_files_are_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "z.pt")
    with pytest.raises(BadInput, match=says):
        images.load_lab_latents(tmp_path / "z.pt", 5)


def test_a_pickle_that_calls_code_does_not(tmp_path):
    import os
    import pickle

    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "called"),)

    (tmp_path / "z.pt").write_bytes(pickle.dumps(Call()))
    with pytest.raises(BadInput, match="not readable as tensors"):
        images.load_lab_latents(tmp_path / "z.pt", 5)
    assert not (tmp_path / "called").exists()
    with pytest.raises(MissingInput, match="no such file"):
        images.load_lab_latents(tmp_path / "none.pt", 5)
