"""Requests and responses of the HTTP API, as pydantic models."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

MAX_INPUTS = 2048
MAX_HITS = 1000
MAX_ROWS = 1000

# A text must not be blank after `clean_text`; the service names the input that is.
NOT_BLANK = {"pattern": r"[^\s\u0000-\u001f\u007f-\u009f]"}
SCALAR: dict[str, Any] = {"type": ["string", "number", "boolean", "null"]}
FILTER: dict[str, Any] = {
    "additionalProperties": {
        "anyOf": [
            SCALAR,
            {"type": "array", "items": SCALAR},
            {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("in", "not_in"), {"type": "array", "items": SCALAR}),
                    **dict.fromkeys(("gt", "gte", "lt", "lte"), {"type": ["string", "number"]}),
                },
                "additionalProperties": False,
            },
        ]
    }
}


def _whole(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Accept 2.0 as 2, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Text = Annotated[StrictStr, Field(min_length=1, json_schema_extra=NOT_BLANK)]
Name = Annotated[StrictStr, Field(min_length=1, max_length=512, json_schema_extra=NOT_BLANK)]
Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS)]
Token = Annotated[StrictInt, Field(ge=0), WHOLE]
Tokens = Annotated[list[Token], Field(min_length=1)]
Score = Annotated[float, Field(ge=-1, le=1, strict=True)]


class Strict(BaseModel):
    """A request; unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid")


class EmbeddingRequest(Strict):
    """OpenAI's request, with ``truncate`` for inputs over the length limit."""

    input: (
        Text | Texts | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=MAX_INPUTS)]
    ) = Field(
        description="A text, texts, or token ids with the model's special tokens; at most 2,048.",
        examples=["A man is playing a guitar."],
    )
    model: StrictStr = Field(description="A name that /v1/models lists.", examples=["mini"])
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[StrictInt, Field(ge=1), WHOLE] | None = Field(
        None, description="One of the sizes the model was trained for; by default the largest."
    )
    user: StrictStr | None = None
    truncate: StrictBool = Field(False, description="Truncate inputs over the length limit.")


class Usage(BaseModel):
    """Tokens computed, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One input's embedding: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingResponse(BaseModel):
    """OpenAI's response."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    dimensions: int
    max_tokens: int
    fingerprint: str


class ModelList(BaseModel):
    """All models of this server."""

    object: Literal["list"] = "list"
    data: list[Model]


class SimilarityRequest(Strict):
    """Texts to compare: each of ``first`` with each of ``second``, or with ``first`` itself."""

    first: Texts = Field(examples=[["A man plays the guitar."]])
    second: Texts | None = Field(None, examples=[["Someone is making music."]])
    truncate: StrictBool = False


class SimilarityResponse(BaseModel):
    """Cosines: row i is ``first[i]``."""

    scores: list[list[float]]
    usage: Usage


class SearchRequest(Strict):
    """A search of the index."""

    query: Text | Texts = Field(examples=["someone makes music"])
    k: Annotated[StrictInt, Field(ge=1, le=MAX_HITS), WHOLE] = 10
    threshold: Score | None = Field(None, description="Lowest cosine of a hit.")
    where: dict[str, Any] | None = Field(
        None,
        description='Filter: {"lang": "en", "tag": ["a", "b"], "year": {"gte": 2000}}.',
        json_schema_extra={"anyOf": [{"type": "object", **FILTER}, {"type": "null"}]},
    )
    truncate: StrictBool = False


class HitBody(BaseModel):
    """A row that was found."""

    id: str
    score: float
    text: str
    metadata: dict[str, Any]
    percentile: float | None = Field(
        None, description="Percentage of the index's sentence pairs with a lower cosine."
    )
    probability: float | None = Field(
        None, description="Probability of a match, fitted to the labeled pairs of calibration."
    )


class SearchResponse(BaseModel):
    """Hits of each query, best first."""

    results: list[list[HitBody]]
    generation: int
    usage: Usage


class NewRow(Strict):
    """A row to add; without an id, the hash of its text is the id."""

    text: Text
    id: Name | Annotated[StrictInt, WHOLE] | None = None
    metadata: dict[str, Any] | None = None


class AddRequest(Strict):
    """Rows to add; a row replaces the one of the same id."""

    rows: Annotated[list[NewRow], Field(min_length=1, max_length=MAX_ROWS)] = Field(
        examples=[[{"text": "A cat sleeps on the sofa.", "metadata": {"source": "notes"}}]]
    )
    truncate: StrictBool = False


class AddResponse(BaseModel):
    """What a commit made durable."""

    added: int
    updated: int
    rows: int
    generation: int


class IndexInfo(BaseModel):
    """The index of this server."""

    rows: int
    generation: int
    index_type: str
    recall: float | None
    fields: dict[str, list[Any]]
    calibrated: bool
    writable: bool


class MapPoint(BaseModel):
    """A row's position on the map."""

    x: float
    y: float
    id: str
    text: str


class IndexMap(BaseModel):
    """The index's rows, or a random sample of them, projected onto their two main directions."""

    points: list[MapPoint]
    rows: int
    explained: float = Field(description="Fraction of the variance in the two directions.")


class AlignmentUniformityPoint(BaseModel):
    """A model by alignment and uniformity."""

    model: str
    alignment: float
    uniformity: float


class AlignmentUniformity(BaseModel):
    """Evaluated models by alignment and uniformity."""

    models: list[AlignmentUniformityPoint]


class State(BaseModel):
    """Health or readiness of the server."""

    status: str


class ErrorDetail(BaseModel):
    """Description of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error."""

    error: ErrorDetail
