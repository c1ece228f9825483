"""Models of `curate` for `extraction.py` that have not seen the pages they are judged by, trained in a process of its own.

    python _extraction_folds.py DATA FOLDER --folds 5 --workers 2

Trains as `classifiers/extract/train.py` does, on the pages with reference texts of all folds but one, for each fold, and writes
FOLDER/fold-K.npz and folds.json {record id: K}, K the fold that the page is in and its model has not seen. No host stands on
both sides; where a page has no address of its own, the one that it names as its own counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "classifiers" / "extract"))


def main() -> None:
    import train

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    pages = train.read_pages(args.data)
    folds: dict[str, int] = {}
    for k, (model, unseen) in enumerate(train.cross_validate(pages, args.folds, workers=args.workers)):
        beside = {pages[i].site for i in unseen}
        if both := beside & {gold.site for i, gold in enumerate(pages) if i not in set(unseen.tolist())}:
            sys.exit(f"fold {k}: {sorted(both)[:3]} are on both sides")
        model.save(args.folder / f"fold-{k}.npz")
        folds |= {pages[i].record_id: k for i in unseen.tolist()}
    (args.folder / "folds.json").write_text(json.dumps(folds))
    print(json.dumps({"pages": len(pages), "sites": len({gold.site for gold in pages})}))


if __name__ == "__main__":
    main()
