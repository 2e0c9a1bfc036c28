"""An application of FastAPI: routes, a stream, a WebSocket, and a lifespan."""

import os
from contextlib import asynccontextmanager

import classes_gate
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import StreamingResponse


@asynccontextmanager
async def lifespan(app):
    (classes_gate.gate / f"started-{os.getpid()}").touch()
    yield
    (classes_gate.gate / f"stopped-{os.getpid()}").touch()


app = FastAPI(lifespan=lifespan)


@app.get("/items/{number}")
async def item(number: int, q: str = ""):
    return {"number": number, "q": q, "pid": os.getpid()}


@app.get("/blocking")
def blocking():
    return "from a thread"


@app.get("/stream")
async def stream():
    async def parts():
        for number in range(3):
            yield f"part {number}\n"

    return StreamingResponse(parts(), media_type="text/plain")


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    try:
        while True:
            await socket.send_text("heard " + await socket.receive_text())
    except WebSocketDisconnect:
        pass
