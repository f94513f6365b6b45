"""Embeddings: of a folder of this server, held against transformers itself, and upstream; every way to ask for them."""

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from far import FarModel, FarServer, far_server, sends, status
from far.judging import COSINE, MODELS, flags, run
from tunesmith.cli.main import app

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "far", "away"]]
TEXTS = ["the cat sat on the mat", "a dog", "far away the dog ran on and on", "the"]
N_LONGEST = 12


def build(folder: Path, *, pooling: str = "mean", normalize: bool = True, more: list[dict[str, str]] | None = None) -> Path:
    """Write a tiny random encoder as sentence-transformers does."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, **size)).save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(folder / "tokenizer.json"))
    kinds = ["Transformer", "Pooling", *["Normalize"] * normalize]
    modules = [{"path": f"1_{kind}", "type": f"sentence_transformers.models.{kind}"} for kind in kinds] + (more or [])
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": N_LONGEST}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


def expected(folder: Path, text: str) -> list[float]:
    """Return the normalised mean of transformers' own output for one text alone."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
    return torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("encoder") / "mini", pooling="mean_tokens")


@pytest.fixture(scope="module")
def _other() -> Iterator[FarServer]:
    with far_server() as server:
        server.models = {"vectors": FarModel(chat=False, embeddings=True), "talks": FarModel()}
        yield server


@pytest.fixture
def other(_other: FarServer) -> FarServer:
    _other.acts.clear()
    _other.asked.clear()
    return _other


@pytest.fixture(scope="module")
def embedding(open_house: Callable[..., Any], tmp_path_factory: Any, folder: Path, _other: FarServer) -> Iterator[Any]:
    """A server with an embedding model of its own, and one upstream."""
    with (
        open_house(tmp_path_factory.mktemp("house")) as served,
        httpx2.Client(base_url=served.root, timeout=120, trust_env=False) as http,
    ):
        body = {"name": "mini", "source": str(folder), "kind": "embedding", "aliases": ["text-embedding-3-large"]}
        added = http.post(MODELS, json=body)
        assert added.status_code == 200, added.text
        base = added.json()
        assert (base["kind"], base["architecture"], base["context_length"]) == ("embedding", "BertModel", N_LONGEST)
        for name in ("vectors", "talks"):
            assert http.post(MODELS, json={"name": name, "upstream": {"url": _other.url}}).status_code == 200
        yield served


@pytest.fixture(scope="module")
def client(embedding: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=embedding.base_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(embedding: Any) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=embedding.root, timeout=120, trust_env=False) as client:
        yield client


def test_vectors_are_those_of_transformers(client: openai.OpenAI, folder: Path, conforms: Callable[..., None]) -> None:
    answer = client.embeddings.create(model="mini", input=TEXTS, encoding_format="float")
    conforms(answer, "CreateEmbeddingResponse")
    assert [row.index for row in answer.data] == [0, 1, 2, 3]
    for row, text in zip(answer.data, TEXTS, strict=True):
        assert row.embedding == pytest.approx(expected(folder, text), abs=1e-5)
        assert math.hypot(*row.embedding) == pytest.approx(1, abs=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 8 + 4 + 10 + 3
    assert answer.model == "mini"


def test_the_openai_client_reads_its_own_form(client: openai.OpenAI, http: httpx2.Client) -> None:
    in_floats = client.embeddings.create(model="mini", input="a dog", encoding_format="float").data[0].embedding
    assert client.embeddings.create(model="text-embedding-3-large", input="a dog").data[0].embedding == in_floats
    raw = http.post("/v1/embeddings", json={"model": "mini", "input": "a dog", "encoding_format": "base64"}).json()
    text = base64.b64decode(raw["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(text) // 4}f", text)) == in_floats


def test_tokens_are_taken_as_they_are(client: openai.OpenAI) -> None:
    ids = [[2, 5, 7, 3], [2, 4, 3]]
    both = client.embeddings.create(model="mini", input=ids, encoding_format="float").data
    alone = client.embeddings.create(model="mini", input=ids[0], encoding_format="float").data
    assert both[0].embedding == pytest.approx(alone[0].embedding, abs=1e-6)
    assert client.embeddings.create(model="mini", input="a dog", encoding_format="float").data[0].embedding == pytest.approx(
        both[0].embedding, abs=1e-6
    )


def test_many_at_once_are_told_apart(client: openai.OpenAI) -> None:
    texts = [" ".join(WORDS[4 + (i * step) % 10] for step in range(1 + i % 9)) for i in range(200)]
    rows = client.embeddings.create(model="mini", input=texts, encoding_format="float").data
    for i in (0, 77, 199):
        alone = client.embeddings.create(model="mini", input=texts[i], encoding_format="float").data[0].embedding
        assert rows[i].embedding == pytest.approx(alone, abs=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({"input": []}, "input", "must be a text"),
        ({"input": ""}, "input", "empty text"),
        ({"input": ["a", ""]}, "input", "(input 1)"),
        ({"input": ["a", 1]}, "input", "must be a text"),
        ({"input": [[1], [True]]}, "input", "must be a text"),
        ({"input": {"a": 1}}, "input", "must be a text"),
        ({"input": ["a"] * 2049}, "input", "at most 2048"),
        ({"input": "\ud800"}, "input", "surrogate"),
        ({"input": "on " * 20}, "input", "maximum context length is 12 tokens, however input 0 has 22 tokens"),
        ({"input": [[5, 14]]}, "input", "the token 14, and this model's are 0 to 13"),
        ({"input": "a", "dimensions": 8}, "dimensions", "have 32, and are not made shorter"),
        ({"input": "a", "dimensions": 0}, "dimensions", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "encoding_format"),
        ({"input": "a", "other": 1}, "other", "other"),
        ({"input": "a", "model": "tunesmith-nano"}, "model", "makes no embeddings. Models here that do: mini, vectors"),
        ({"input": "a", "model": "talks"}, "model", "makes no embeddings"),
    ],
)
def test_what_cannot_be_taken_is_refused_by_its_name(http: httpx2.Client, body: Any, param: str, told: str) -> None:
    content = json.dumps({"model": "mini", **body}).encode()
    answer = http.post("/v1/embeddings", content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], told in error["message"]) == (400, param, True), error


def test_its_own_width_may_be_asked_for_and_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    assert len(client.embeddings.create(model="mini", input="a", dimensions=32, user="me").data[0].embedding) == 32
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="nobody", input="a")


def test_an_embedding_model_neither_chats_nor_is_tuned(client: openai.OpenAI, rows: Callable[[int], bytes]) -> None:
    with pytest.raises(openai.BadRequestError, match="ask it by /v1/embeddings"):
        client.chat.completions.create(model="mini", messages=[{"role": "user", "content": "Hello"}])
    file = client.files.create(file=("rows.jsonl", rows(10)), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="is an embedding model"):
        client.fine_tuning.jobs.create(model="mini", training_file=file.id)
    assert {"mini", "vectors"} <= {model.id for model in client.models.list()}


def test_a_model_upstream_is_asked(client: openai.OpenAI, other: FarServer, conforms: Callable[..., None]) -> None:
    other.vectors = {"a": [0.5, 0.25], "b": [0.0, 1.0]}
    answer = client.embeddings.create(model="vectors", input=["a", "b"], dimensions=2)
    conforms(client.embeddings.create(model="vectors", input="a", encoding_format="float"), "CreateEmbeddingResponse")
    assert [row.embedding for row in answer.data] == [[0.5, 0.25], [0.0, 1.0]]
    assert (answer.usage.prompt_tokens, answer.model) == (2, "vectors")
    assert other.asked[0]["body"] == {"model": "vectors", "input": ["a", "b"], "dimensions": 2}
    other.acts.append(status(400, "no such dimensions"))
    with pytest.raises(openai.BadRequestError, match="no such dimensions"):
        client.embeddings.create(model="vectors", input="a", dimensions=9)
    for told in ({"data": []}, {"data": [{"index": 0, "embedding": "x"}]}):
        other.acts.append(sends(told))
        with pytest.raises(openai.InternalServerError):
            client.embeddings.create(model="vectors", input="a")


def test_cosine_is_of_the_model_that_is_called_so(client: openai.OpenAI, folder: Path) -> None:
    left, right = (expected(folder, text) for text in TEXTS[:2])
    told = run(client, COSINE, TEXTS[0], {"answer": TEXTS[1]})
    assert flags(told) == {}
    assert told["reward"] == pytest.approx(max(0.0, sum(a * b for a, b in zip(left, right, strict=True))), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pooling": "mean_sqrt_len_tokens"}, "pools by mean_sqrt_len_tokens"),
        ({"more": [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]}, "has a module Dense"),
    ],
)
def test_a_folder_that_cannot_be_kept_to_is_refused(http: httpx2.Client, tmp_path: Path, change: Any, told: str) -> None:
    source = build(tmp_path / "mini", **{"pooling": "mean_tokens", **change})
    answer = http.post(MODELS, json={"name": "other", "source": str(source), "kind": "embedding"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "source")
    assert told in answer.json()["error"]["message"]


def test_a_folder_that_is_none_is_refused_and_one_that_is_removed_is_gone(
    http: httpx2.Client, embedding: Any, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    assert "is none" in http.post(MODELS, json={"name": "x", "source": "/nowhere", "kind": "embedding"}).text
    assert "is taken by" in http.post(MODELS, json={"name": "tunesmith-nano", "source": "/", "kind": "embedding"}).text
    source = build(tmp_path / "mini", pooling="cls_token", normalize=False)
    words = ["models", "add", "second", str(source), "--kind", "embedding", "--base-url", embedding.base_url]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 0, said.output
    assert "second is ready: BertModel" in said.output
    assert http.delete(f"{MODELS}/second").status_code == 200
    assert http.post("/v1/embeddings", json={"model": "second", "input": "a"}).status_code == 404
