"""A native application of tornado."""

import asyncio

import classes_gate
import tornado.ioloop
import tornado.web

# Scheduled while the module is imported.
scheduled = []
tornado.ioloop.IOLoop.current().add_callback(scheduled.append, "ran")


class Handler(tornado.web.RequestHandler):
    async def get(self):
        if self.request.path == "/scheduled":
            self.write(" ".join(scheduled))
            return
        if self.request.path == "/wait":
            classes_gate.enter()
            while not classes_gate.is_released():
                await asyncio.sleep(classes_gate.LOOK)
        self.write(classes_gate.text(self.request.query, len(self.request.body)))

    post = get


application = tornado.web.Application([("/.*", Handler)])
