"""Queries the test server through Microsoft's ODBC driver and prints what came, one JSON value a line.

    mssql.py CONNECTION < LINES

Each line is a JSON array of a statement and its parameters. Types that JSON lacks are written as {"type": text}.
"""
import datetime
import decimal
import json
import sys
import uuid

import mssql_python


def shown(value):
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (decimal.Decimal, uuid.UUID, datetime.datetime)):
        return {type(value).__name__.lower(): str(value)}
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


def main():
    try:
        connection = mssql_python.connect(sys.argv[1], autocommit=True)
    except mssql_python.Error as error:
        print(json.dumps({"login": str(error)}))
        return
    for line in sys.stdin:
        statement, *parameters = json.loads(line)
        cursor = connection.cursor()
        print(json.dumps(list(results(cursor, statement, [given(value) for value in parameters])), ensure_ascii=False))
        cursor.close()
    connection.close()


main()
