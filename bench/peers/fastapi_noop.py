"""FastAPI validating a usage and answering 201 with a number; uvicorn serves it."""

from itertools import count

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
_numbers = count(1)


class Usage(BaseModel):
    """What a device posts."""

    patientId: str  # noqa: N815 - the contract's name
    timestamp: str
    medication: str


@app.post("/api/usages", status_code=201)
async def post_usage(_: Usage) -> dict[str, int]:
    """Answer as if the usage were stored."""
    return {"id": next(_numbers)}
