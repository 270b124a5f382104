"""betman select_prototypes: motifs that recur over models with different numbers of states."""

from pathlib import Path

import numpy as np
import pandas as pd

from lisbet.commands.applying.result_files import motif_table
from lisbet.commands.motifs import selection
from lisbet.commands.motifs.runs import require_one_run
from lisbet.commands.motifs.selection import MotifStatistics, Selection
from lisbet.commands.motifs.tables import find_tables, read_motifs, require_no_others
from lisbet.core.errors import DataError, counted
from lisbet.core.storage.files import require_writable, write_file
from lisbet.core.storage.results import require_result_files
from lisbet.core.storage.write_log import WriteLog
from lisbet.options import PrototypeOptions


def select_prototypes(options: PrototypeOptions) -> None:
    """Write prototypes/ and print what is known of each prototype."""
    folder = options.output_path / "prototypes"
    word = f"{options.method}_{options.min_n_components}_{options.max_n_components}"
    name = motif_table(word)
    info, summary = (
        options.output_path / f"info_hmm{word}.npz",
        folder / f"prototypes_hmm{word}.csv",
    )
    require_writable(folder)
    require_one_run(options.data_path, options.numbers)
    first = motif_table(options.min_n_components)
    ids = find_tables(options.data_path, (first,), options.filters, "segment_motifs")
    paths = [folder / record_id / name for record_id in ids]
    require_result_files([*paths, summary], root=folder, overwrite=options.overwrite)
    require_result_files([info], root=options.output_path, overwrite=options.overwrite)
    require_no_others(folder, name, ids)
    names, recordings = read_all(options, ids)
    counts = selection.count(recordings)
    kept = selection.keep(
        counts,
        fps=options.fps,
        frame_threshold=options.frame_threshold,
        bout_threshold=options.bout_threshold,
        distance_threshold=options.distance_threshold,
    )
    found = selection.select(counts.distances, kept, options.method)
    chosen = found.kept[found.prototypes]
    columns = [names[number] for number in chosen]
    notes = WriteLog(folder)
    for path, active in zip(paths, recordings, strict=True):
        with write_file(path, root=folder, overwrite=options.overwrite, notes=notes) as temporary:
            pd.DataFrame(active[:, chosen].astype(int), columns=columns).to_csv(temporary)
    table = summary_of(found, counts, names, options.fps)
    with write_file(summary, root=folder, overwrite=options.overwrite, notes=notes) as temporary:
        table.to_csv(temporary, index=False)
    _write_info(info, found, names, overwrite=options.overwrite)
    print(table.drop(columns="members").to_string(index=False, float_format="{:.3f}".format))
    print(
        f"{counted(len(columns), 'prototype')} of {len(kept)} motifs that recur, of {len(names)}, "
        f"for {counted(len(ids), 'recording')}, written to {folder}"
    )


def read_all(
    options: PrototypeOptions, record_ids: list[str]
) -> tuple[list[str], list[np.ndarray]]:
    """Read the motifs of all numbers of states.

    Returns
    -------
    names : list of str
        Of the motifs.
    recordings : list of ndarray
        (frames, motifs) of each recording, bool.

    Raises
    ------
    DataError
        If the tables of a recording have different lengths.
    """
    names: list[str] = []
    parts: list[list[np.ndarray]] = [[] for _ in record_ids]
    for n_states in options.numbers:
        names += [f"HMM_{n_states}_Motif_{number}" for number in range(n_states)]
        for part, active in zip(
            parts, read_motifs(options.data_path, record_ids, n_states), strict=True
        ):
            part.append(active)
    for record_id, part in zip(record_ids, parts, strict=True):
        lengths = [len(active) for active in part]
        if len(set(lengths)) > 1:
            other = next(n for n in range(len(lengths)) if lengths[n] != lengths[0])
            file = options.data_path / record_id / motif_table(options.min_n_components + other)
            raise DataError(
                f"{file} has {lengths[other]} frames, but {lengths[0]} with "
                f"{options.min_n_components} states: they are of different recordings; give betman "
                "segment_motifs again"
            )
    return names, [np.concatenate(part, axis=1) for part in parts]


def summary_of(
    found: Selection, counts: MotifStatistics, names: list[str], fps: float
) -> pd.DataFrame:
    """Return a row for each prototype."""
    rows = []
    for cluster, place in enumerate(found.prototypes):
        motif = found.kept[place]
        members = found.kept[found.labels == found.labels[place]]
        rows.append(
            {
                "prototype": names[motif],
                "cluster": cluster,
                "motifs": len(members),
                "silhouette": found.silhouettes[place],
                "frame_fraction": counts.fractions[motif],
                "bouts": counts.bouts[motif],
                "mean_bout_s": counts.durations(fps)[motif],
                "members": " ".join(names[member] for member in members),
            }
        )
    return pd.DataFrame(rows)


def _write_info(path: Path, found: Selection, names: list[str], *, overwrite: bool) -> None:
    """Write distances and clusters, under the names of the published tool, and `motifs`."""
    from scipy.spatial.distance import squareform

    with write_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            cond_dist_matrix=squareform(found.distances, checks=False),
            link_matrix=found.tree,
            all_score=found.all_scores,
            all_n_clusters=np.arange(2, len(found.kept)),
            all_labels=found.all_labels,
            best_n_clusters=found.best + 2,
            best_score=found.all_scores[found.best],
            best_labels=found.labels,
            prototypes=found.prototypes,
            motifs=np.array([names[motif] for motif in found.kept]),
        )
