"""What platforms look for: a module wsgi with an application."""

from app import create_app

application = create_app()
