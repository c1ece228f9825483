"""The quality recipes of papers, each from end to end over a small part of the real data: how much it keeps, and of what.

A large model's place is taken by a server that answers from what is known of a text: its source, or its words. So the students
have something to learn that can be learned, and what they say can be compared with what the teacher would have said.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from llm_server import Server

from curate import classify
from curate.errors import RecipeError, StageError
from curate.memory import as_table
from curate.recipe import Recipe
from curate.stages.classifier import Classifier

EDUCATION = {  # what a teacher of pupils might think of the sources
    "science_abstracts": 4, "encyclopedia": 5, "medical": 4, "tech_docs": 3, "books": 2, "legal_en": 2, "speeches": 2,
    "legal_de": 1, "web_articles": 1, "reviews": 1, "code": 1, "web_forum": 0, "email_lists": 0,
}  # fmt: skip
CLINICAL = re.compile(r"\b(patients?|treat\w*|symptoms?|diagnos\w*|doctor|surgery|therap\w*|disease)\b", re.I)
BIOMEDICAL = re.compile(r"\b(genes?|mutations?|proteins?|cells?|chromosomes?|enzymes?|DNA|inherit\w*)\b", re.I)


def known(text):
    """How a text is known again when it was cut or stripped."""
    return re.sub(r"\W+", "", text)[:60]


class Teacher(Server):
    """A server whose answers come from what is known of a text. judges: by the name of the model."""

    def __init__(self, **judges):
        super().__init__(models=tuple(judges))
        self.judges = judges

    def _content(self, asked, prompt, text, fault):
        schema = asked["response_format"]["json_schema"]["schema"]
        text = prompt.partition("\n==========\n")[2].rpartition("\n==========")[0]  # which may hold such a line itself
        value = self.judges[asked["model"]](text, schema["properties"])
        assert set(value) == set(schema["required"])
        return json.dumps(value), "stop"


@dataclass
class Finished:
    """A run: where it is, what it kept, and what its summary says of each stage."""

    out: Path
    kept: pl.DataFrame
    stages: dict
    digest: str

    def documents(self, *stages):
        """Every document of the last generation with what these stages wrote, nulls where a document did not come so far."""
        folder = sorted(self.out.glob("documents*/manifest.json"))[-1].parent
        found = []
        for file in sorted(folder.glob("[0-9]*.parquet")):
            table = pl.read_parquet(file).with_row_index("_row").with_columns(pl.col("_row").cast(pl.UInt32))
            for stage in stages:
                (layer,) = self.out.glob(f"attributes/{stage}-*")
                written = pl.read_parquet(layer / file.name)
                table = table.drop([name for name in written.columns[1:] if name in table.columns])
                table = table.join(written, on="_row", how="left", maintain_order="left")
            for drops in self.out.glob("drops/*"):
                if (drops / file.name).exists() and not drops.name.startswith("ingest-"):
                    gone = pl.read_parquet(drops / file.name, columns=["_row", "_reason"])
                    gone = gone.rename({"_reason": drops.name.rpartition("-")[0]})
                    table = table.join(gone, on="_row", how="left", maintain_order="left")
            found.append(table)
        return pl.concat(found, how="diagonal_relaxed")

    def metrics(self, stage, head):
        """The figures of a student on documents held out, as the classifier that it left in the run has them."""
        (folder,) = self.out.glob(f"index/{stage}-*/{head}")
        return classify.about(folder).raw["metrics"]


@pytest.fixture(scope="module")
def library(shared_data, tmp_path_factory):
    """(folder with parts of the data sets as files, the source of each text in them)"""
    folder = tmp_path_factory.mktemp("library")
    domains = pl.read_parquet(shared_data / "domains" / "domains.parquet").with_columns(pl.col("text").str.slice(0, 2000))
    sample = pl.concat([part.head(100) for part in domains.partition_by("domain", maintain_order=True)])
    sample = sample.filter(pl.col("text").str.len_chars() > 200).sample(fraction=1, shuffle=True, seed=1)
    sample.select("id", "text", source="domain").write_parquet(folder / "domains.parquet")
    many = [part.head(400) for part in domains.partition_by("domain", maintain_order=True)]
    pl.concat(many).with_columns(pl.col("text").str.slice(0, 800)).select("id", "text").write_parquet(folder / "many.parquet")
    medical = domains.filter(pl.col("domain") == "medical")
    medical[:200].select("id", "text").write_parquet(folder / "papers.parquet")
    medical[500:700].select("text").write_parquet(folder / "medicine.parquet")
    quality = pl.read_parquet(shared_data / "quality" / "quality.parquet")
    quality.filter(pl.col("kind") == "science_abstract")[:200].select("text").write_parquet(folder / "references.parquet")
    return folder, {known(row["text"]): row["domain"] for row in sample.to_dicts()}


def run(name, out, inputs, *settings, workers=1):
    """A shipped recipe over inputs, in this process."""
    recipe = Recipe.load(name, settings).with_inputs([str(path) for path in inputs])
    recipe.run(out, workers=workers)
    summary = json.loads((out / "summary.json").read_text())
    kept = pl.read_parquet(out / "output" / "data" / "*.parquet")
    done = Finished(out, kept, {stage["id"]: stage for stage in summary["stages"]}, summary["digest"])
    for stage in summary["stages"]:  # every removal has a reason, and every reason is written down
        assert stage["rows_in"] + stage["rows_added"] - stage["rows_out"] == sum(stage["drops"].values()), stage["id"]
    ledger = pl.read_parquet(out / "ledger.parquet").filter(pl.col("reason").is_not_null())
    said = {(s, r): n for s, r, n in ledger.group_by("stage", "reason").agg(pl.col("documents").sum()).rows()}
    assert said == {(id_, reason): n for id_, stage in done.stages.items() for reason, n in stage["drops"].items()}
    assert not [reason for _, reason in said if reason.startswith("error")]
    return done


def taught(server, out, **models):
    """Settings that send the teachers of a recipe to the server, half of the documents each."""
    return [
        setting
        for stage, model in models.items()
        for setting in (
            f"stages.{stage}.server={server.url}",
            f"stages.{stage}.model={model}",
            f"stages.{stage}.cache={out / 'answers'}",
            f"stages.{stage}.sample=0.5",
        )
    ]


def share_of_tokens(kept, of):
    """Tokens of the first as a share of the second, and what the largest document has of that."""
    total = of["tokens"].sum()
    return kept["tokens"].sum() / total, of["tokens"].max() / total


FAST = "{dim: 16, epoch: 20, lr: 0.5, bucket: 20000}"


# --------------------------------------------------------------------------------------------- references against the corpus


def test_dclm_keeps_a_tenth_of_the_tokens(library, shared_data, tmp_path):
    folder, _ = library
    pages = shared_data / "crawl" / "wcxb-dev-00001.warc.gz"
    references = f"stages.dclm.positive=[{folder}/references.parquet]"
    done = run("dclm", tmp_path / "run", [pages], references, f"stages.dclm.options={FAST}")
    scored = done.documents("dclm").filter(pl.col("dclm_score").is_not_null())
    share, largest = share_of_tokens(done.kept, scored)
    assert 0.1 - largest <= share <= 0.1
    assert (
        done.kept["dclm_score"].min() > scored.filter(~pl.col("id").is_in(done.kept["id"].to_list()))["dclm_score"].max() - 1e-6
    )
    assert set(done.stages["best"]["drops"]) == {"quantile.below"}
    assert {reason.partition(".")[0] for reason in done.stages["rules"]["drops"]} <= {"gopher", "gopher_repetition"}
    assert set(done.stages["language"]["drops"]) == {"language.not_kept", "language.low_score"}
    assert done.metrics("dclm", "dclm_score")["kappa"] > 0.8  # abstracts of papers are unlike pages


def test_dsir_draws_a_tenth_of_the_documents(library, tmp_path):
    folder, _ = library
    done = run("dsir", tmp_path / "run", [folder / "domains.parquet"], f"stages.dsir.targets=[{folder}/medicine.parquet]")
    drops = done.stages["dsir"]["drops"]
    long_enough = done.stages["dsir"]["rows_in"] - drops.get("dsir.too_short", 0)
    assert set(drops) == {"dsir.not_drawn", "dsir.too_short"}
    assert len(done.kept) in (int(0.1 * long_enough), int(0.1 * done.stages["dsir"]["rows_in"]))
    medical = (done.kept["source"] == "medical").mean()
    everywhere = (done.documents()["source"] == "medical").mean()
    assert medical > 5 * everywhere


def test_betr_keeps_what_is_near_to_benchmarks(library, shared_data, tmp_path):
    folder, _ = library
    examples = [shared_data / "benchmarks" / f"{name}.train.jsonl.gz" for name in ("arc_easy", "openbook_qa")]
    done = run(
        "betr",
        tmp_path / "run",
        [folder / "many.parquet"],
        f"stages.betr.examples=[{', '.join(map(str, examples))}]",
        f"stages.student.options={FAST}",
    )
    docs = done.documents("betr", "student")
    looked_at = docs.filter(pl.col("betr_label").is_not_null())
    positive = looked_at.filter(pl.col("betr_label") == "positive")
    assert 0.08 < len(positive) / len(looked_at) < 0.12 and set(looked_at["benchmark"]) <= {"arc_easy", "openbook_qa"}
    assert positive["best_rank"].max() <= looked_at.filter(pl.col("betr_label") == "negative")["best_rank"].min()
    scored = docs.filter(pl.col("betr_label_pred_score").is_not_null())
    share, largest = share_of_tokens(done.kept, scored)
    assert 0.1 - largest <= share <= 0.1
    assert (done.kept["betr_label"] == "positive").mean() > 3 * (looked_at["betr_label"] == "positive").mean()
    assert set(done.stages["best"]["drops"]) == {"quantile.below"}
    with pytest.raises(RecipeError, match="test"):  # never learned from
        run(
            "betr",
            tmp_path / "no",
            [folder / "many.parquet"],
            f"stages.betr.examples={shared_data}/benchmarks/piqa.test.jsonl.gz",
        )


# --------------------------------------------------------------------------------------------- taught by a large model


def education(table):
    """A teacher that rates by where a text comes from, a point less or more for a fifth of the texts."""

    def judge(text, source):
        rating = table[source[known(text)]] + (int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10 == 0)
        return {"justification": "by its source", "educational_score": min(rating, 5)}

    return judge


def test_fineweb_edu_keeps_what_its_student_rates_3_or_more(library, tmp_path):
    folder, source = library
    judge = education(EDUCATION)
    with Teacher(large=lambda text, _: judge(text, source)) as server:
        settings = taught(server, tmp_path, teacher="large")
        done = run("fineweb_edu", tmp_path / "run", [folder / "domains.parquet"], *settings)
        asked = server.requests
    rated = done.documents("teacher", "student").filter(pl.col("educational_score_pred").is_not_null())
    assert asked == rated["educational_score"].count() and 0.4 < asked / len(rated) < 0.6
    assert done.kept["educational_score_pred"].min() > 2.5
    assert len(done.kept) == (rated["educational_score_pred"] > 2.5).sum()
    unseen = rated.filter(pl.col("educational_score").is_null())
    wanted = np.array([EDUCATION[s] >= 3 for s in unseen["source"]])
    kept = (unseen["educational_score_pred"] > 2.5).to_numpy()
    assert abs(kept.mean() - wanted.mean()) < 0.1 and (kept == wanted).mean() > 0.85
    assert set(done.stages["best"]["drops"]) <= {"where.false", "where.null"}
    assert done.metrics("student", "educational_score")["kappa"] > 0.6
    # the server is gone, but its answers are kept: other workers come to the same, byte by byte
    again = run("fineweb_edu", tmp_path / "again", [folder / "domains.parquet"], *settings, workers=2)
    assert again.digest == done.digest
    # and what the run leaves behind says the same elsewhere
    (student,) = done.out.glob("index/student-*/educational_score")
    elsewhere = done.documents("embed", "student").select("text", "embedding", "educational_score_pred").to_arrow()
    found = Classifier(model=str(student), embedding="embedding")(as_table(elsewhere)).kept
    assert np.array_equal(found["score"].to_numpy(), found["educational_score_pred"].to_numpy(), equal_nan=True)


def test_a_student_of_noise_is_refused(library, tmp_path):
    folder, _ = library
    with Server() as server, pytest.raises(StageError, match=r"'educational_score' .* does not agree enough"):
        run("fineweb_edu", tmp_path / "run", [folder / "domains.parquet"], *taught(server, tmp_path, teacher="test-model"))


def test_nemotron_cc_cuts_scores_into_bins_and_tiers(library, tmp_path):
    folder, source = library
    judges = [education(EDUCATION), education({**EDUCATION, "code": 5, "tech_docs": 5, "medical": 2, "encyclopedia": 3})]
    with Teacher(one=lambda text, _: judges[0](text, source), two=lambda text, _: judges[1](text, source)) as server:
        settings = taught(server, tmp_path, teacher_a="one", teacher_b="two")
        done = run("nemotron_cc", tmp_path / "run", [folder / "domains.parquet"], *settings)
    docs = done.documents("bins", "ensemble").filter(pl.col("quality_bucket").is_not_null())
    scores = ["a_educational_score_pred_bin", "b_educational_score_pred_bin", "dclm_score_bin"]
    for score in scores:
        scored = docs.filter(pl.col(score).is_not_null())
        for k in range(1, 20):
            share, largest = share_of_tokens(scored.filter(pl.col(score) >= k), scored)
            assert 1 - k / 20 - largest <= share <= 1 - k / 20 + 1e-9, (score, k)
    assert docs["quality_bucket"].equals(docs.select(pl.max_horizontal(scores)).to_series().cast(pl.Float64), check_names=False)
    lowest = {"high": 19, "medium_high": 18, "medium": 12, "medium_low": 7, "low": 0}
    for bucket, tier in docs.select("quality_bucket", "quality_bucket_tier").rows():
        assert tier == next(name for name, low in lowest.items() if bucket >= low)
    tiers = {name: share_of_tokens(docs.filter(pl.col("quality_bucket_tier") == name), docs)[0] for name in lowest}
    assert 0.045 < tiers["high"] < 0.15  # the union of three twentieths
    assert 0.045 < tiers["medium_high"] < 0.15 and tiers["low"] < 0.35 and sum(tiers.values()) == pytest.approx(1)
    gone = docs.filter(pl.col("rules").is_not_null())
    assert set(gone["rules"]) == {"where.false"} and not {"high", "medium_high"} & set(gone["quality_bucket_tier"])
    assert len(done.kept) == len(docs) - len(gone) and len(gone) > 0
    (thresholds,) = (tmp_path / "run").glob("index/bins-*/thresholds.json")
    assert len(re.findall(r"\d\.\d+", thresholds.read_text())) >= 3 * 19


def test_cci4_keeps_half_of_each_language(library, shared_data, tmp_path):
    folder, source = library

    def judge(table, text):
        if known(text) in source:
            return education(table)(text, source)
        return {"justification": "a page", "educational_score": 3 + ("。" in text)}

    other = {**EDUCATION, "code": 5, "tech_docs": 5, "medical": 2, "encyclopedia": 3}
    with Teacher(one=lambda text, _: judge(EDUCATION, text), two=lambda text, _: judge(other, text)) as server:
        done = run(
            "cci4",
            tmp_path / "run",
            [folder / "domains.parquet", shared_data / "crawl" / "zh-extraction-00000.warc.gz"],
            *taught(server, tmp_path, teacher_a="one", teacher_b="two"),
            f"stages.like.positive=[{folder}/references.parquet]",
            f"stages.like.options={FAST}",
        )
    docs = done.documents("substring_dedup", "language_again", "ensemble", "domain")
    docs = docs.filter(pl.col("quality_bucket").is_not_null())
    for language in ("en", "zh"):
        here = docs.filter(pl.col("language") == language)
        share, largest = share_of_tokens(done.kept.filter(pl.col("language") == language), here)
        assert len(here) > 20 and 0.5 - largest <= share <= 0.5, language
        assert here["quality_bucket"].max() == 19
    named = {language: here["domain"].count() for (language,), here in done.kept.group_by("language")}
    assert named["en"] == (done.kept["language"] == "en").sum()  # of Chinese the classifier knows hardly a word
    assert set(docs["chinese"].drop_nulls()) <= {"where.false"}


def test_dataman_keeps_a_tenth_of_each_domain(library, tmp_path):
    folder, source = library
    fields = {
        "medical": "medicine", "legal_en": "law", "legal_de": "law", "code": "coding", "tech_docs": "technology",
        "reviews": "entertainment", "speeches": "government", "science_abstracts": "mathematics", "books": "culture",
    }  # fmt: skip

    def judge(text, properties):
        of = source[known(text)]
        ratings = {name: 1 + hashlib.sha256(f"{of}/{name}".encode()).digest()[0] % 5 for name in properties if name != "domain"}
        return {**ratings, "domain": fields.get(of, "other")}

    with Teacher(large=judge) as server:
        done = run("dataman", tmp_path / "run", [folder / "domains.parquet"], *taught(server, tmp_path, teacher="large"))
    docs = done.documents("teacher", "student").filter(pl.col("overall_score_pred").is_not_null())
    heads = [name for name in docs.columns if name.endswith("_pred")]
    assert len(heads) == 15
    assert all(done.metrics("student", head.removesuffix("_pred"))["kappa"] > 0.5 for head in heads)
    unseen = docs.filter(pl.col("domain").is_null())
    right = [fields.get(s, "other") == said for s, said in unseen.select("source", "domain_pred").rows()]
    assert np.mean(right) > 0.8
    for (domain,), here in docs.group_by("domain_pred"):
        share, largest = share_of_tokens(done.kept.filter(pl.col("domain_pred") == domain), here)
        assert 0.1 - largest <= share <= 0.1, domain
    assert set(done.stages["best"]["drops"]) <= {"quantile.below", "quantile.no_score"}


def test_biomed_keeps_paragraphs_worth_teaching(library, tmp_path):
    folder, _ = library

    def judge(text, _):
        clinical, biomedical = len(CLINICAL.findall(text)), len(BIOMEDICAL.findall(text))
        density = 100 * (clinical + biomedical) / len(text.split())
        return {
            "document_type": "clinical_case"
            if "symptom" in text.lower()
            else "study"
            if "research" in text.lower()
            else "review",
            "domain": "clinical" if clinical > biomedical else "biomedical" if biomedical else "other",
            "educational_score": 1 + sum(density > bound for bound in (1, 3, 5, 7)),
            "language": "en",
        }

    with Teacher(large=judge) as server:
        done = run("biomed", tmp_path / "run", [folder / "papers.parquet"], *taught(server, tmp_path, teacher="large"))
    docs = done.documents("student").filter(pl.col("educational_score_pred").is_not_null())
    assert (
        docs["text_bytes"].max() <= 1500 and done.kept["text_bytes"].min() >= 200 if "text_bytes" in done.kept.columns else True
    )
    assert done.kept["educational_score_pred"].min() > 2.5
    truth = np.array([judge(text, {})["educational_score"] >= 3 for text in docs["text"]])
    kept = (docs["educational_score_pred"] > 2.5).to_numpy()
    assert abs(kept.mean() - truth.mean()) < 0.15 and (kept == truth).mean() > 0.7
    assert {"document_type_pred", "document_type_pred_score", "domain_pred", "domain_pred_score"} <= set(done.kept.columns)
    for head in ("document_type", "domain", "educational_score"):
        assert done.metrics("student", head)["kappa"] >= 0.3
