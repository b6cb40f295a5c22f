"""Queries the test server through Microsoft's ODBC driver and prints what came, one JSON value a line.

    mssql.py query CONNECTION < LINES      each line a JSON array of a statement and its parameters
    mssql.py pool CONNECTION < LINES       the same, each line on a connection that is taken from the driver's pool
    mssql.py limit CONNECTION < LINES      the same, each line may take one second
    mssql.py diagnose CONNECTION < LINES   each line a statement; prints the driver's own records of its errors:
                                           number, class, state, line, server, text

Types that JSON lacks are written as {"type": text}.
"""
import ctypes
import datetime
import decimal
import glob
import json
import os
import sys
import uuid

import mssql_python
import mssql_python_odbc


def shown(value):
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (decimal.Decimal, uuid.UUID, datetime.datetime)):
        return {type(value).__name__.lower(): str(value).lower()}
    return value


def given(value):
    if not isinstance(value, dict):
        return value
    ((kind, text),) = value.items()
    return {
        "bytes": bytes.fromhex,
        "decimal": decimal.Decimal,
        "uuid": uuid.UUID,
        "datetime": datetime.datetime.fromisoformat,
    }[kind](text)


def results(cursor, statement, parameters):
    try:
        cursor.execute(statement, *parameters)
        while True:
            if cursor.description:
                names = [column[0] for column in cursor.description]
                yield {"columns": names, "rows": [[shown(cell) for cell in row] for row in cursor.fetchall()]}
            else:
                yield {"count": cursor.rowcount}
            if not cursor.nextset():
                return
    except mssql_python.Error as error:
        yield {"error": str(error)}


def connect(connection_string):
    try:
        return mssql_python.connect(connection_string, autocommit=True)
    except mssql_python.Error as error:
        print(json.dumps({"login": str(error)}))
        sys.exit()


def run(connection, line):
    statement, *parameters = json.loads(line)
    cursor = connection.cursor()
    print(json.dumps(list(results(cursor, statement, [given(value) for value in parameters])), ensure_ascii=False))
    cursor.close()


def query(connection_string, seconds=0):
    connection = connect(connection_string)
    connection.timeout = seconds
    for line in sys.stdin:
        run(connection, line)
    connection.close()


def pool(connection_string):
    for line in sys.stdin:
        connection = connect(connection_string)
        run(connection, line)
        connection.close()


def limit(connection_string):
    query(connection_string, 1)


# Handles, attributes and diagnostic fields of ODBC, the last four Microsoft's own.
ENVIRONMENT, CONNECTION, STATEMENT = 1, 2, 3
ODBC_VERSION, ODBC_3 = 200, 3
STATE, CLASS, SERVER, LINE = -1150, -1151, -1152, -1154
NO_DATA = 100


class Driver:
    """The driver without a driver manager: only as much of ODBC as errors need."""

    def __init__(self, connection_string):
        folder = os.path.dirname(mssql_python_odbc.__file__)
        (library,) = glob.glob(f"{folder}/libs/linux/debian_ubuntu/*/lib/libmsodbcsql-*")
        self.odbc = ctypes.CDLL(library)
        environment = self.handle(ENVIRONMENT, None)
        self.check(self.odbc.SQLSetEnvAttr(environment, ODBC_VERSION, ctypes.c_void_p(ODBC_3), 0))
        self.connection = self.handle(CONNECTION, environment)
        text = self.text("Driver={ODBC Driver 18 for SQL Server};" + connection_string)
        self.check(self.odbc.SQLDriverConnectW(self.connection, None, text, -3, None, 0, None, 0))

    @staticmethod
    def text(text):
        return ctypes.create_string_buffer(text.encode("utf-16-le") + b"\0\0")

    @staticmethod
    def check(result):
        if result not in (0, 1):
            sys.exit(f"the ODBC driver says {result}")

    def handle(self, kind, parent):
        handle = ctypes.c_void_p()
        self.check(self.odbc.SQLAllocHandle(kind, parent, ctypes.byref(handle)))
        return handle

    def number(self, statement, record, field, kind):
        value = kind()
        self.check(self.odbc.SQLGetDiagFieldW(STATEMENT, statement, record, field, ctypes.byref(value), 0, None))
        return value.value

    def errors(self, sql):
        statement = self.handle(STATEMENT, self.connection)
        self.odbc.SQLExecDirectW(statement, self.text(sql), -3)
        records = []
        while True:
            record = len(records) + 1
            sqlstate, text, server = (ctypes.create_string_buffer(size) for size in (12, 8192, 512))
            native, length = ctypes.c_int(), ctypes.c_short()
            result = self.odbc.SQLGetDiagRecW(
                STATEMENT, statement, record, sqlstate, ctypes.byref(native), text, 4096, ctypes.byref(length)
            )
            if result == NO_DATA:
                self.odbc.SQLFreeHandle(STATEMENT, statement)
                return records
            self.check(result)
            self.check(
                self.odbc.SQLGetDiagFieldW(STATEMENT, statement, record, SERVER, server, 512, ctypes.byref(length))
            )
            whole = text.raw.decode("utf-16-le").split("\0")[0]
            records.append(
                [
                    native.value,
                    self.number(statement, record, CLASS, ctypes.c_int),
                    self.number(statement, record, STATE, ctypes.c_int),
                    self.number(statement, record, LINE, ctypes.c_ushort),
                    server.raw.decode("utf-16-le").split("\0")[0],
                    # Behind the names of the vendor, the driver and the server.
                    whole.rsplit("]", 1)[-1],
                ]
            )


def diagnose(connection_string):
    driver = Driver(connection_string)
    for line in sys.stdin:
        print(json.dumps(driver.errors(line.rstrip("\n")), ensure_ascii=False), flush=True)


{"query": query, "pool": pool, "limit": limit, "diagnose": diagnose}[sys.argv[1]](sys.argv[2])
