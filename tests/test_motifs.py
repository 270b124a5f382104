"""Motifs: against the published tool, hmmlearn, scikit-learn and counts by hand; bad input."""

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import yaml
from hmmlearn.hmm import GaussianHMM
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score

from lisbet.cli import main
from lisbet.commands.applying.sidecar import ResultModel
from lisbet.commands.motifs import hmm, segment, selection
from lisbet.commands.motifs.saved import read_model
from lisbet.core.errors import DataError, ModelError

PUBLISHED = Path(__file__).parent / "published_motifs"
"""What the published tool 0.4.3 wrote for the embeddings there: segment_motifs --max_n_components=6
--num_iter=12 --hmm_seed=7, then select_prototypes with the options of `test_the_prototypes`."""
EMBEDDINGS = "features_lisbet_embedding.csv"
IDS = ["day1/b", "e"]
SEGMENT = ["segment_motifs", "embeddings", "--hmm_seed=7", "--num_iter=12", "--n_jobs=2"]


def read(path) -> np.ndarray:
    return pd.read_csv(path, index_col=0).to_numpy()


def write(record_id: str, values: np.ndarray, folder: str = "embeddings") -> None:
    path = Path(folder, record_id, EMBEDDINGS)
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(values).to_csv(path)


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The embeddings of the published tool's results."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PUBLISHED / "embeddings", "embeddings")
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Run a command that must fail; return what it says."""

    def run(*words: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main(list(words))
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert "defect" not in said
        return said

    return run


def hashes(folder: str = "annotations") -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in Path(folder).rglob("*")
        if path.is_file() and path.name != ".lisbet.jsonl"
    }


# The published tool -------------------------------------------------------------------------------


def test_the_same_states_scores_and_models_as_the_published_tool(place, capsys):
    main([*SEGMENT, "--max_n_components=6"])
    for n in range(2, 7):
        for record_id in IDS:
            name = f"{record_id}/machineAnnotation_hmm{n}.csv"
            theirs = (PUBLISHED / "annotations" / name).read_text()
            assert Path("annotations", name).read_text() == theirs
        theirs = read(PUBLISHED / f"annotations/history_hmm{n}.csv")
        np.testing.assert_allclose(read(f"annotations/history_hmm{n}.csv"), theirs, rtol=1e-9)
        scores = yaml.safe_load((PUBLISHED / f"annotations/metrics_hmm{n}.yaml").read_text())
        ours = yaml.safe_load(Path(f"annotations/metrics_hmm{n}.yaml").read_text())
        assert {name: ours[name] for name in scores} == pytest.approx(scores, rel=1e-9)
        # Other programs can load it.
        model = joblib.load(f"annotations/model_hmm{n}.joblib")
        assert type(model) is GaussianHMM
        theirs = joblib.load(PUBLISHED / f"annotations/model_hmm{n}.joblib")
        np.testing.assert_allclose(model.means_, theirs.means_, rtol=1e-6, atol=1e-9)
        assert vars(model).keys() == vars(theirs).keys()
    table = pd.read_csv("annotations/metrics_hmm.csv")
    assert table["n_components"].tolist() == [2, 3, 4, 5, 6]
    assert table["bic"].idxmin() + 2 == min(
        range(2, 7),
        key=lambda n: yaml.safe_load((PUBLISHED / f"annotations/metrics_hmm{n}.yaml").read_text())[
            "bic"
        ],
    )
    assert "n_components" in capsys.readouterr().out


def test_models_of_the_published_tool_are_used(place, refused):
    words = ["segment_motifs", "embeddings", f"--pretrained_path={PUBLISHED / 'annotations'}"]
    assert "there are models of 2, 3, 4, 5, 6 states" in refused(*words)
    assert not Path("annotations").exists()
    main([*words, "--max_n_components=4"])
    for n in (2, 3, 4):
        for record_id in IDS:
            name = f"{record_id}/machineAnnotation_hmm{n}.csv"
            theirs = (PUBLISHED / "annotations" / name).read_text()
            assert Path("annotations", name).read_text() == theirs
    assert not list(Path("annotations").glob("*.joblib"))
    before = hashes()
    main([*words, "--max_n_components=4"])
    assert {k: v for k, v in hashes().items() if "metrics_hmm.csv" not in k
            and "motifs.yml" not in k}.items() <= before.items()  # fmt: skip


@pytest.mark.parametrize("method", ["min", "best"])
def test_the_prototypes(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["select_prototypes", str(PUBLISHED / "annotations"), f"--method={method}",
          "--min_n_components=2", "--max_n_components=6", "--bout_threshold=0.1", "--fps=25",
          "--distance_threshold=0.75"])  # fmt: skip
    word = f"{method}_2_6"
    for record_id in IDS:
        name = f"prototypes/{record_id}/machineAnnotation_hmm{word}.csv"
        assert Path(name).read_text() == (PUBLISHED / name).read_text()
    theirs = np.load(PUBLISHED / f"info_hmm{word}.npz")
    ours = np.load(f"info_hmm{word}.npz")
    for name in theirs.files:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-12, err_msg=name)
    table = pd.read_csv(f"prototypes/prototypes_hmm{word}.csv")
    columns = pd.read_csv(f"prototypes/e/machineAnnotation_hmm{word}.csv", index_col=0).columns
    assert table["prototype"].tolist() == list(columns)
    assert table["motifs"].sum() == len(ours["motifs"])


# Fitting ------------------------------------------------------------------------------------------


def test_sums_in_parts_are_those_of_hmmlearn(monkeypatch):
    monkeypatch.setattr(hmm, "CHUNK", 7)
    values = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    theirs = GaussianHMM(3, "full", n_iter=4, tol=1e-3, random_state=1)
    theirs.fit(values, [25, 35])
    ours = hmm.fit(values, [25, 35], 3, n_iter=4, seed=1, stop=threading.Event())
    assert ours.history == pytest.approx(list(theirs.monitor_.history), rel=1e-9)
    assert ours.score.ll == pytest.approx(theirs.score(values, [25, 35]), rel=1e-9)
    assert ours.score.bic == pytest.approx(theirs.bic(values, [25, 35]), rel=1e-9)
    np.testing.assert_array_equal(hmm.decode(ours.model, values), theirs.predict(values))


def test_known_motifs_are_found(tmp_path, monkeypatch):
    """Three states far from each other, and a fourth number of states that is too many."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    truth = np.repeat(rng.integers(0, 3, 40), 15)
    centres = np.array([[0, 0], [8, 0], [0, 8]])
    write("m", centres[truth] + rng.normal(size=(600, 2)))
    main(["segment_motifs", "embeddings", "--max_n_components=4", "--hmm_seed=3"])
    table = read("annotations/m/machineAnnotation_hmm3.csv")
    assert (table.sum(axis=1) == 1).all()
    assert adjusted_rand_score(truth, table.argmax(axis=1)) > 0.99
    scores = pd.read_csv("annotations/metrics_hmm.csv", index_col="n_components")
    assert scores["bic"].idxmin() == 3


def test_a_recording_is_drawn_once(place):
    """The published tool draws with replacement: the whole is not the whole."""
    for number in range(5):
        write(f"c{number}", np.random.default_rng(number).normal(size=(20 + number, 3)))
    options = segment.SegmentOptions(data_path="embeddings", fit_frac=1.0, hmm_seed=1)
    ids = segment.find_tables(Path("embeddings"), (EMBEDDINGS,), None, "compute_embeddings")
    data = segment.read_embeddings(Path("embeddings"), ids)
    theirs = np.random.default_rng(1).choice(7, 7)
    assert len(set(theirs.tolist())) < 7
    lengths = segment.fitted_part(data, options)[1]
    assert sorted(lengths) == sorted(data.lengths)
    for seed in range(20):  # where the published tool draws none twice, it is the same
        part = options.model_copy(update={"fit_frac": 0.3, "hmm_seed": seed})
        theirs = np.random.default_rng(seed).choice(7, 3).tolist()
        lengths = segment.fitted_part(data, part)[1]
        assert len(lengths) == 3
        if len(set(theirs)) == 3:
            assert lengths == [data.lengths[number] for number in theirs]


def test_what_is_finished_is_not_computed_again(place, monkeypatch, capsys):
    fitted = []
    fit = hmm.fit

    def noted(values, lengths, n_states, **rest):
        if n_states == 2 and len(fitted) == 2:
            raise KeyboardInterrupt
        fitted.append(n_states)
        return fit(values, lengths, n_states, **rest)

    monkeypatch.setattr(hmm, "fit", noted)
    words = ["segment_motifs", "embeddings", "--max_n_components=4", "--hmm_seed=1", "--n_jobs=1"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 130
    assert fitted == [4, 3]
    capsys.readouterr()
    with pytest.raises(SystemExit):  # an unfinished range is not taken for a finished one
        main(["select_prototypes", "annotations", "--min_n_components=2", "--max_n_components=4"])
    assert "does not hold finished motifs of 2 states" in capsys.readouterr().err
    monkeypatch.setattr(hmm, "fit", lambda *a, **k: (fitted.append(a[2]), fit(*a, **k))[1])
    before = hashes()
    main(words)
    assert fitted == [4, 3, 2]
    assert "2 of 3 were finished before" in capsys.readouterr().out
    kept = {name: seen for name, seen in before.items() if "hmm4" in name or "hmm3" in name}
    assert len(kept) >= 10
    assert kept.items() <= hashes().items()
    # A file that was lost or changed is made again.
    Path("annotations/e/machineAnnotation_hmm3.csv").unlink()
    main(words)
    assert fitted == [4, 3, 2, 3]
    # More numbers of states join those that are there.
    main([*words[:2], "--max_n_components=5", "--hmm_seed=1"])
    assert fitted == [4, 3, 2, 3, 5]
    assert len(pd.read_csv("annotations/metrics_hmm.csv")) == 4


def test_a_kill_leaves_what_can_be_resumed(place):
    """Killed while the tables of the second model are written."""
    program = """
import os, signal, sys
from lisbet.commands.motifs import segment
write, count = segment.write_states, []
def counted(path, *rest):
    count.append(path)
    if len(count) == 4:
        path.write_text("half a ta")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, *rest)
segment.write_states = counted
from lisbet.cli import main
main(sys.argv[1:])
"""
    words = [*SEGMENT[:-1], "--n_jobs=1", "--max_n_components=4"]
    done = subprocess.run([sys.executable, "-c", program, *words], check=False, timeout=300,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == -9
    assert len(list(Path("annotations").rglob("*.partial"))) == 1
    main(words)
    for name in ("hmm2", "hmm3", "hmm4"):
        for record_id in IDS:
            path = f"annotations/{record_id}/machineAnnotation_{name}.csv"
            assert Path(path).read_text() == (PUBLISHED / path).read_text()


def test_results_of_other_embeddings_are_not_mixed(place, refused):
    words = ["segment_motifs", "embeddings", "--max_n_components=3", "--hmm_seed=1"]
    main(words)
    before = hashes()
    assert "with --num_iter=10 instead of 20" in refused(*words, "--num_iter=20")
    write("e", np.random.default_rng(0).normal(size=(50, 3)))
    assert "of other embeddings" in refused(*words)
    one = refused(*words[:2], words[3], "--overwrite", "--max_n_components=2")
    assert "3 states would stay" in one
    one = refused(*words, "--overwrite", "--data_filter=e")
    assert "day1/b would stay" in one
    assert hashes() == before
    main([*words, "--overwrite"])
    assert len(read("annotations/e/machineAnnotation_hmm3.csv")) == 50
    # A file that betman did not write is never replaced.
    Path("annotations/e/machineAnnotation_hmm3.csv").write_text("mine")
    assert "was not written by betman, or was changed" in refused(*words, "--overwrite")


def test_models_of_other_embeddings_are_refused(place, refused):
    ResultModel(model_id="m", weights_sha256="0" * 64).write(Path("embeddings"))
    main([*SEGMENT, "--max_n_components=2", "--output_path=first"])
    shutil.copytree(PUBLISHED / "embeddings", "others")
    ResultModel(model_id="n", weights_sha256="1" * 64).write(Path("others"))
    words = ["segment_motifs", "others", "--max_n_components=2", "--output_path=second"]
    said = refused(*words, "--pretrained_path=first/annotations")
    assert "model m" in said
    assert "model n" in said


# Bad input ----------------------------------------------------------------------------------------


def test_bad_embeddings(place, refused):
    words = ["segment_motifs", "embeddings", "--max_n_components=3"]
    assert "is no folder" in refused("segment_motifs", "nowhere")
    Path("empty").mkdir()
    assert f"holds no {EMBEDDINGS}" in refused("segment_motifs", "empty")
    assert "none of the 2 recordings" in refused(*words, "--data_filter=zzz")
    assert "is the folder of one recording" in refused("segment_motifs", "embeddings/e")
    assert "3 is more than --max_n_components=2" in refused(
        *words[:2], "--min_n_components=3", "--max_n_components=2"
    )
    assert "--n_jobs=0" in refused(*words, "--n_jobs=0")
    assert "--fit_frac" in refused(*words, "--fit_frac=1.5")
    values = np.ones((30, 3))
    values[7, 1] = np.nan
    write("e", values)
    assert "in frame 7, column 1" in refused(*words)
    write("e", np.ones((30, 4)))
    assert "has 4 columns" in refused(*words)
    Path("embeddings/e", EMBEDDINGS).write_text(",0,1,2\n0,1,2,x\n")
    assert "is no table of numbers" in refused(*words)
    pd.DataFrame(np.ones((30, 3))).to_csv(f"embeddings/e/{EMBEDDINGS}", index=False)
    assert "no column of frame numbers" in refused(*words)
    Path("embeddings/e", EMBEDDINGS).write_text(",0,1,2\n")
    assert "has 0 rows" in refused(*words)
    write("e", np.ones((3, 3)))
    assert "3 frames cannot be divided" in refused(*words, "--data_filter=e")
    assert not Path("annotations").exists() or not hashes()


def test_states_in_no_frame_are_counted():
    score = hmm.Score(-1.0, 2.0, 3.0, 5)
    found = segment.Segmentation(4, None, score, [np.array([0, 0, 3]), np.array([1, 3])])
    assert found.metrics(segment.MotifRun(
        embeddings_sha256="0", options={}, model=None, recordings=2, frames=5, embedding_dim=1,
    ))["empty_states"] == 1  # fmt: skip


@pytest.mark.parametrize("different", [1, 2])
def test_fewer_different_frames_than_states(place, refused, different):
    write("e", np.arange(30)[:, None] % different * np.ones((30, 3)))
    words = ["segment_motifs", "embeddings", "--data_filter=e", "--min_n_components=2"]
    said = refused(*words, "--max_n_components=3")
    assert f"the 30 frames have {different} different embedding" in said
    assert "3 states" in said
    assert not Path("annotations").exists() or not hashes()


def test_embeddings_that_no_model_fits():
    values = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    values[7] = np.inf
    with pytest.raises(DataError, match="no hidden Markov model with 3 states fits"):
        hmm.fit(values, [30], 3, n_iter=5, seed=0, stop=threading.Event())


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_no_code_is_run(place):
    good = PUBLISHED / "annotations/model_hmm3.joblib"
    model = read_model(good, 3, 3)
    theirs = joblib.load(good)
    np.testing.assert_array_equal(model.covars_, theirs.covars_)
    np.testing.assert_array_equal(model.transmat_, theirs.transmat_)
    with pytest.raises(DataError, match="a model of embeddings with 3 columns, but these have 5"):
        read_model(good, 3, 5)
    with pytest.raises(ModelError, match="no array of 4 states"):
        read_model(good, 4, 3)
    bad = Path("bad.joblib")
    theirs.monitor_ = Evil()
    joblib.dump(theirs, bad)
    with pytest.raises(ModelError, match="it names posix.system"):
        read_model(bad, 3, 3)
    theirs = joblib.load(good)
    theirs.means_ = np.array([[Evil()] * 3] * 3)  # joblib loads arrays of objects by pickle
    joblib.dump(theirs, bad)
    with pytest.raises(ModelError, match="an array of type 'O"):
        read_model(bad, 3, 3)
    bad.write_bytes(good.read_bytes()[:-200])
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(bad, 3, 3)
    joblib.dump(theirs, bad, compress=3)
    with pytest.raises(ModelError, match="no uncompressed pickle"):
        read_model(bad, 3, 3)
    bad.write_bytes(pickle.dumps({"means_": 1}))
    with pytest.raises(ModelError, match="no GaussianHMM"):
        read_model(bad, 3, 3)
    theirs = joblib.load(good)
    theirs.transmat_ = theirs.transmat_ * 2
    joblib.dump(theirs, bad)
    with pytest.raises(ModelError, match="does not hold probabilities"):
        read_model(bad, 3, 3)
    assert not Path("evil").exists()


@pytest.mark.parametrize("number", range(40))
def test_damaged_models_are_refused_or_read(number, tmp_path):
    """A byte is changed: nothing but our errors, and no memory beyond the file's size."""
    data = bytearray((PUBLISHED / "annotations/model_hmm3.joblib").read_bytes())
    rng = np.random.default_rng(number)
    data[rng.integers(len(data))] = rng.integers(256)
    path = tmp_path / "model_hmm3.joblib"
    path.write_bytes(data)
    with contextlib.suppress(ModelError, DataError):
        read_model(path, 3, 3)


# Prototypes ---------------------------------------------------------------------------------------


def test_counts_by_hand():
    first = np.array([[1, 0], [1, 1], [0, 1], [1, 0]], bool)
    second = np.array([[1, 0], [0, 0]], bool)
    found = selection.count([first, second])
    assert found.together.tolist() == [[4, 1], [1, 2]]
    assert found.bouts.tolist() == [3, 1]  # the last of a recording and the first of the next
    assert found.fractions.tolist() == [4 / 6, 2 / 6]
    assert found.durations(2).tolist() == [4 / 3 / 2, 1.0]
    np.testing.assert_allclose(found.distances, [[0, 1 - 1 / 5], [1 - 1 / 5, 0]])


def test_many_frames_are_counted_in_parts(monkeypatch):
    active = np.random.default_rng(0).random((1000, 5)) < 0.3
    whole = selection.count([active])
    monkeypatch.setattr(selection, "CHUNK", 64)
    np.testing.assert_array_equal(selection.count([active]).together, whole.together)
    np.testing.assert_array_equal(whole.together, active.T.astype(int) @ active)


def test_bad_motifs(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(PUBLISHED / "annotations", "annotations")
    words = ["select_prototypes", "annotations", "--min_n_components=2", "--max_n_components=4"]
    assert "expected 'min' or 'best'" in refused(*words, "--method=all")
    assert "--max_n_components=9" not in refused(*words[:-1], "--max_n_components=9")
    said = refused(*words, "--bout_threshold=100")
    assert "0 of these last long enough (--bout_threshold=100" in said
    assert not Path("prototypes").exists()
    file = Path("annotations/e/machineAnnotation_hmm3.csv")
    text = file.read_text()
    for bad, expected in (
        (text.replace("Motif_1", "Motif_7"), "expected Motif_0 to Motif_2"),
        (text + "150,1,1,0\n", "frame 150 does not have exactly one motif"),
        (text + "150,0,0,1\n", "151 frames, but 150 with 2 states"),
        (text.replace("\n3,", "\nx,", 1).replace(",1", ",y"), "is no table of numbers"),
    ):
        file.write_text(bad)
        assert expected in refused(*words)
    file.unlink()
    assert "is missing" in refused(*words)


def test_prototypes_are_replaced_on_demand(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    words = ["select_prototypes", str(PUBLISHED / "annotations"), "--min_n_components=2",
             "--max_n_components=6", "--bout_threshold=0"]  # fmt: skip
    main(words)
    before = hashes("prototypes")
    assert "results exist already" in refused(*words)
    assert "of other recordings (day1/b)" in refused(*words, "--overwrite", "--data_filter=e")
    assert hashes("prototypes") == before
    main([*words, "--overwrite"])


# Dimensions ---------------------------------------------------------------------------------------


def test_principal_components(place, refused, capsys):
    main(["reduce_dimensions", "embeddings", "--method=pca", "--num_dims=2"])
    values = np.concatenate([read(f"embeddings/{r}/{EMBEDDINGS}") for r in IDS])
    theirs = PCA(2, svd_solver="full").fit(values)
    expected = theirs.transform(values)
    ours = np.concatenate([read(f"embeddings/{r}/features_pca2d_dimred.csv") for r in IDS])
    np.testing.assert_allclose(ours * np.sign(ours[0] * expected[0]), expected, atol=1e-4)
    share = f"{theirs.explained_variance_ratio_[0]:.1%}"
    assert share in capsys.readouterr().out
    assert "results exist already" in refused("reduce_dimensions", "embeddings", "--method=pca")
    words = ["reduce_dimensions", "embeddings", "--method=pca", "--output_path=new"]
    assert "only 3 dimensions" in refused(*words, "--num_dims=4")
    assert "--umap_seed is for --method=umap" in refused(*words, "--umap_seed=1")
    assert "there are only 2 recordings" in refused(*words, "--sample_size=3")
    main([*words, "--sample_size=1", "--sample_seed=0"])
    assert len(list(Path("new").rglob("*dimred.csv"))) == 1


@pytest.mark.thorough
def test_umap_keeps_neighbours_together(tmp_path, monkeypatch):
    """Two groups of frames far from each other stay apart, those that are placed later, too."""
    pytest.importorskip("umap")
    monkeypatch.chdir(tmp_path)
    group = np.arange(120) % 2
    write("m", np.random.default_rng(0).normal(size=(120, 4)) + 30 * group[:, None])
    main(["reduce_dimensions", "embeddings", "--umap_seed=1", "--num_neighbors=10",
          "--fit_frames=80", "--sample_seed=1"])  # fmt: skip
    plane = read("embeddings/m/features_umap2d10_dimred.csv")
    assert plane.shape == (120, 2)
    assert silhouette_score(plane, group) > 0.5


def test_what_umap_needs(place, refused, monkeypatch):
    words = ["reduce_dimensions", "embeddings", "--umap_seed=1"]
    assert "too few for --num_neighbors=300" in refused(*words, "--num_neighbors=300")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    assert "pip install 'lisbet[umap]'" in refused(*words)
    monkeypatch.undo()
