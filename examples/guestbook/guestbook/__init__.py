"""A guest book: the smallest Django project with a database, migrations, the admin and static files."""

import pymysql

# Django's mysql is written for mysqlclient, which has to be compiled. PyMySQL need not be.
pymysql.install_as_MySQLdb()
