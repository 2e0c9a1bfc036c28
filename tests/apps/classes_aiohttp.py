"""An application of aiohttp."""

import asyncio

import classes_gate
from aiohttp import web


async def handle(request):
    body = await request.read()
    if request.path == "/wait":
        classes_gate.enter()
        while not classes_gate.is_released():
            await asyncio.sleep(classes_gate.LOOK)
    return web.Response(text=classes_gate.text(request.query_string, len(body)))


application = web.Application()
application.router.add_route("*", "/{path:.*}", handle)
