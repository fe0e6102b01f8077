"""Works with a database through PyMySQL and MySQL's own connector, neither of which knows who is between.

Arguments: port, file with the authority's certificate. Prints a line for each part that went as it should.
"""

import sys

import mysql.connector
import pymysql

PORT, CA = int(sys.argv[1]), sys.argv[2]
HANGUL = "문지기 🚪"


def pymysql_part():
    connection = pymysql.connect(
        host="127.0.0.1", port=PORT, user="anybody", password="", database="shop", charset="utf8mb4",
        ssl_ca=CA, ssl_verify_cert=True, ssl_verify_identity=True, autocommit=False,
    )
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80), data BLOB) "
                       "CHARACTER SET utf8mb4")
        cursor.executemany("INSERT INTO items (name) VALUES (%s)", [(f"{HANGUL} {n}",) for n in range(100)])
        connection.commit()
        cursor.execute("SELECT COUNT(*), MAX(name) FROM items")
        assert cursor.fetchone() == (100, f"{HANGUL} 99"), "rows"
        cursor.execute("DELETE FROM items WHERE id > 50")
        assert cursor.rowcount == 50, cursor.rowcount
        connection.rollback()
        try:
            cursor.execute("SELECT broken FROM items")
            raise AssertionError("no error")
        except pymysql.err.OperationalError as error:
            assert error.args[0] == 1054, error
        # More than a packet of 16 MiB holds, there and back.
        blob = bytes(range(256)) * (17 * 4096)
        cursor.execute("SELECT %s", (blob,))
        assert cursor.fetchone()[0] == blob, "a large value"
    with connection.cursor(pymysql.cursors.SSCursor) as cursor:
        cursor.execute("SELECT seq FROM seq_1_to_20000")
        assert sum(row[0] for row in cursor) == 200010000, "rows one by one"
    connection.ping()
    connection.close()
    print("pymysql: ok")


def connector_part():
    connection = mysql.connector.connect(
        host="127.0.0.1", port=PORT, user="anybody", password="nothing", database="shop", use_pure=True,
        ssl_ca=CA, ssl_verify_cert=True, charset="utf8mb4", collation="utf8mb4_general_ci",
    )
    cursor = connection.cursor(prepared=True)
    for n in range(20):
        cursor.execute("INSERT INTO items (name, data) VALUES (%s, %s)", (f"prepared {n}", b"\0\xff" * n))
    cursor.execute("SELECT name, LENGTH(data) FROM items WHERE name LIKE %s ORDER BY id", ("prepared%",))
    rows = cursor.fetchall()
    assert rows[19] == ("prepared 19", 38) and len(rows) == 20, rows
    # A long value goes ahead of the statement, in pieces.
    cursor.execute("SELECT LENGTH(%s)", (b"x" * 300000,))
    assert cursor.fetchall() == [(300000,)]
    cursor.close()
    cursor = connection.cursor()
    cursor.execute("CREATE PROCEDURE two() BEGIN SELECT 1; SELECT 2 UNION SELECT 3; END")
    cursor.callproc("two")
    assert [result.fetchall() for result in cursor.stored_results()] == [[(1,)], [(2,), (3,)]], "results"
    connection.commit()
    connection.cmd_reset_connection()
    try:
        connection.cmd_change_user("root", "")
        raise AssertionError("the user was changed")
    except mysql.connector.Error as error:
        assert error.errno == 1047, error
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]
    connection.close()
    print("connector: ok")


pymysql_part()
connector_part()
