"""Decoding image features: held-out scenes teach nothing, and what there is to find is found."""

import json
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nblib.core.errors import BadInput, BadParameter
from nblib.core.params import Recipe
from nblib.data.images import Images
from nblib.evaluate import scores
from nblib.experiments import decode
from nblib.experiments.images import features, from_spikes, words
from nblib.experiments.images.split import split_scenes
from nblib.prepare.decoder_inputs import Samples

N_SCENES, N_UNITS, N_BINS = 40, 60, 2
FEW = {"n_permutations": 100, "n_bootstrap": 100}


@pytest.fixture(scope="module")
def shown():
    """Images of few dimensions, so that forty of them can teach the rest."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16] / 16
    waves = np.stack([np.cos(np.pi * (i * x + j * y)) for i, j in ((1, 0), (0, 1), (2, 1), (1, 2))])
    pixels = 0.5 + 0.15 * np.tensordot(rng.uniform(-1, 1, (N_SCENES, 4)), waves, 1)
    return Images(pixels.astype(np.float32), np.arange(N_SCENES), "a test")


@pytest.fixture(scope="module")
def data(shown):
    """Units that count as a linear function of the pixels says; the blank is a class too."""
    rng = np.random.default_rng(1)
    flat = shown.pixels.reshape(N_SCENES, -1) - 0.5
    drive = flat @ rng.standard_normal((256, N_BINS * N_UNITS)) / 4
    rates = np.vstack([np.full(drive.shape[1], 4.0), 4 * np.exp(np.clip(drive, -2, 2))])
    rates = rates.reshape(N_SCENES + 1, N_BINS, N_UNITS)

    def samples(repeats, first):
        y = rng.permutation(np.repeat(np.arange(N_SCENES + 1), repeats))
        x = rng.poisson(rates[y]).astype(np.float32)
        return Samples(x, y, np.arange(first, first + len(y)))

    return decode.Data(
        samples(12, 0), samples(2, 1000), samples(4, 2000),
        classes=np.arange(-1, N_SCENES), unit_ids=np.arange(N_UNITS),
        units=pd.DataFrame(index=range(N_UNITS)), scaling=(np.zeros(N_UNITS), np.ones(N_UNITS)),
        stop_s=np.array([0.1, 0.2]), label_name="frame", split_hash="h",
    )  # fmt: skip


RECIPE = Recipe(recipe="tiny", recordings=["tiny"], source="nwb", blank="-1")


def asked(**given):
    return from_spikes.Params(recipe="tiny", recording="tiny", **{"spaces": ["pca"], "n_latents": 4, **FEW, **given})  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Decodes images, each time with a folder of its own."""

    def run(data, shown, **given):
        folder = tmp_path / uuid.uuid4().hex
        return from_spikes.decode_images(data, shown, asked(**given), RECIPE, folder)

    return run


def test_scenes_are_dealt_whole(data, shown):
    scenes = split_scenes(data, shown, asked(), RECIPE)
    assert (len(scenes.train), len(scenes.val), len(scenes.held)) == (27, 5, 8)
    assert len({*scenes.train, *scenes.val, *scenes.held}) == N_SCENES
    for rows in (scenes.train, scenes.val, scenes.held, scenes.all):  # images are found by place
        assert (np.diff(rows) > 0).all()
    of = {name: set(part.y) for name, part in scenes.presentations.items()}
    assert of["fit"] == set(scenes.train) and of["choose"] == set(scenes.val)
    assert of["fit, all"] == {*scenes.train, *scenes.val} == of["seen"]
    assert of["unseen"] == set(scenes.held)
    trials = {name: set(part.trial) for name, part in scenes.presentations.items()}
    assert not (trials["seen"] | trials["unseen"]) & (trials["fit, all"] | trials["choose"])
    assert scenes.presentations["fit"].x.mean() == pytest.approx(0, abs=1e-5)
    other = split_scenes(data, shown, asked(seed=1), RECIPE)
    assert set(other.held) != set(scenes.held)


def test_poisoned_held_out_presentations_change_nothing(data, shown, run):
    """Every presentation of a held-out scene, and its image, set to nonsense: the same decoder."""
    given = {"spaces": ["pca", "gabor", "vae"], "vae_epochs": 3}
    scenes = split_scenes(data, shown, asked(**given), RECIPE)
    held = np.isin(data.train.y - 1, scenes.held)
    x = data.train.x.copy()
    x[held] = 200
    poisoned = replace(data, train=replace(data.train, x=x))
    pixels = shown.pixels.copy()
    pixels[scenes.held] = 1.0
    one = run(data, shown, **given)
    other = run(poisoned, replace(shown, pixels=pixels), **given)
    for name in given["spaces"]:
        a, b = one.spaces[name], other.spaces[name]
        assert a.chosen == b.chosen
        for kind in a.weights:
            np.testing.assert_array_equal(a.weights[kind], b.weights[kind])
        np.testing.assert_array_equal(a.features[scenes.train], b.features[scenes.train])
        assert a.scores["seen"] != {} and a.decoded["unseen"].shape == b.decoded["unseen"].shape


@pytest.mark.parametrize("regressor", ["ridge", "pls", "mlp"])
def test_unseen_images_are_found_where_units_tell_them(data, shown, run, regressor):
    found = run(data, shown, regressor=regressor)
    s = found.spaces["pca"].scores
    for which in ("seen", "unseen_held", "unseen_all"):
        assert s[which]["accuracy"].ci_low > s[which]["accuracy"].chance, which
    assert s["unseen_held"]["accuracy"].chance == pytest.approx(1 / 8)
    assert s["unseen_all"]["accuracy"].chance == pytest.approx(1 / N_SCENES)
    assert s["reconstruction"]["pixel_correlation"].p < 0.05
    assert s["reconstruction"]["of_the_true_features"].value > 0.99
    fit = found.spaces["pca"].fit
    assert 0.5 < fit["unseen"]["r"] < fit["unseen"]["reliability"] + 0.05 < 1.05
    table = from_spikes.comparison(found).set_index("which")
    assert table.loc[from_spikes.SETS["seen"], "r"] == fit["seen"]["r"] != fit["unseen"]["r"]


def test_how_far_images_are_drawn_apart_is_chosen_without_test_presentations(data, shown, run):
    """One held-out image of other counts: the picture of another held-out image stays as it was."""
    one = run(data, shown)
    first, *_ = one.scenes.held
    x = data.test.x.copy()
    x[data.test.y == first + 1] += 9  # class 0 is the blank
    other = run(replace(data, test=replace(data.test, x=x)), shown)
    drawn = [o.spaces["pca"].pictures for o in (one, other)]
    assert not np.allclose(drawn[0][0], drawn[1][0])
    np.testing.assert_array_equal(drawn[0][1:], drawn[1][1:])


def test_shuffled_labels_are_at_chance(data, shown, run):
    rng = np.random.default_rng(5)
    parts = {n: replace(getattr(data, n), y=rng.permutation(getattr(data, n).y)) for n in ("train", "val", "test")}  # fmt: skip
    s = run(replace(data, **parts), shown).spaces["pca"].scores
    for which in ("seen", "unseen_held", "unseen_all"):
        assert s[which]["accuracy"].p > 0.01, which
    # Test the test: test scenes that taught after all are found far too often.
    assert run(data, shown).spaces["pca"].scores["seen"]["accuracy"].p < 0.02


def test_the_best_possible_is_asked_of_the_same_presentations(data, shown, tmp_path):
    """Who knows the class of every test presentation finds every image, seen and held out."""
    ideal = np.where(np.arange(len(data.classes)) == data.test.y[:, None], 0.0, -50.0)
    found = from_spikes.decode_images(data, shown, asked(), RECIPE, tmp_path, ideal)
    assert {which: s["accuracy"].value for which, s in found.best.items()} == dict.fromkeys(from_spikes.SETS, 1.0)  # fmt: skip


def test_without_held_out_images_only_seen_ones_are_judged(data, shown, run):
    for regressor in ("ridge", "mlp"):
        given = {"held_out": 0.0, "regressor": regressor, "max_epochs": 2}
        found = run(data, shown, **given)
        assert set(found.spaces["pca"].scores) == {"seen"} and not found.best
        assert "images in so many" in words.in_words(found, asked(**given).regressor, RECIPE)
        assert words.examples(found)["row"].nunique() == 5
    assert "No space of this run" in words.drawn_table(found)["nothing drawn"][0]


def test_the_gallery_shows_the_space_that_validation_prefers_whatever_the_test_says(
    shown, data, run
):
    found = run(data, shown, spaces=["spectrum", "pca"])
    val, y = found.scenes.val, found.scenes.presentations["choose"].y
    good, bad = found.spaces["pca"], found.spaces["spectrum"]
    for one, right in ((good, y), (bad, np.roll(val, 1)[np.searchsorted(val, y)])):
        one.decoded["choose"] = one.features[right]  # one finds every image, the other none
    bad.decoded["choose"][y == val[0]] = bad.features[val[0]]  # the other finds one of them
    good.decoded["choose"][y == val[1]] = good.features[val[0]]  # and this one misses one
    good.decoded["unseen"] = -good.decoded["unseen"]  # and the worst of spaces on the test
    assert words.preferred(found) == "pca"
    assert set(words.examples(found)["space"]) == {"pca"}


def test_a_run_is_stored_with_a_row_for_each_result(data, shown, run, tmp_path):
    given = {"spaces": ["pca", "vae"], "vae_epochs": 2}
    found = run(data, shown, **given)
    from_spikes.result_of(found, data, asked(**given)).save(tmp_path, {})
    told = json.loads((tmp_path / scores.METRICS).read_text())
    assert len(told["rows"]) == 6 and len(told["held_out"]) == 8
    assert told["rows"][1]["model"] == "pca by ridge"
    assert {"accuracy", "top5", "median_rank"} <= set(told["rows"][0]["scores"])
    from safetensors.numpy import load_file

    kept = load_file(tmp_path / "latents.safetensors")
    np.testing.assert_array_equal(kept["pca"], found.spaces["pca"].features)
    weights = load_file(tmp_path / "decoder_pca.safetensors")
    x = found.scenes.presentations["unseen"].x
    again = x.reshape(len(x), -1) @ weights["weight"] + weights["bias"]
    np.testing.assert_allclose(again, found.spaces["pca"].decoded["unseen"], atol=1e-6)
    table = pd.read_parquet(tmp_path / "retrieval.parquet")
    assert len(table) == 2 * 4 * N_SCENES and table["rank"].between(1, N_SCENES).all()
    assert Path(tmp_path / "vae.safetensors").is_file()


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"regressor": "forest"}, BadParameter, "regressor = 'forest'"),
        ({"spaces": ["pca", "foo"]}, BadParameter, "no 'foo'"),
        ({"spaces": ["pca", "pca"]}, BadParameter, "named twice"),
        ({"spaces": ["lab"]}, BadParameter, "go together"),
        ({"latents": "z.pt"}, BadParameter, "go together"),
        ({"held_out": 0.75}, BadInput, "leaves 8 to fit on"),
        ({"held_out": 0.01}, BadInput, "0 held out"),
    ],
)
def test_bad_settings_are_named(data, shown, run, given, error, says):
    with pytest.raises(error, match=says):
        run(data, shown, **given)


def test_lab_latents_are_a_space(data, shown, run, tmp_path):
    import torch

    space = features.PCA(4)
    space.fit(shown.pixels, None)
    torch.save(torch.as_tensor(space.encode(shown.pixels)), tmp_path / "z.pt")
    found = run(data, shown, spaces=["lab"], latents=str(tmp_path / "z.pt"))
    s = found.spaces["lab"].scores["unseen_held"]["accuracy"]
    assert s.ci_low > s.chance
