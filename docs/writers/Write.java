import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

/** Writes one event by JDBC: JDBC_URL='jdbc:postgresql://127.0.0.1:5432/shop?user=shop' java -cp postgresql.jar Write.java */
class Write {
    public static void main(String[] arguments) throws SQLException {
        try (var connection = DriverManager.getConnection(System.getenv("JDBC_URL"))) {
            connection.setAutoCommit(false);
            place(connection);
            connection.commit();
        }
    }

    static void place(Connection connection) throws SQLException {
        try (var update = connection.prepareStatement("UPDATE orders SET state = 'placed' WHERE id = ?")) {
            update.setInt(1, 42);
            update.executeUpdate();
        }
        // begin
        // Java, JDBC: between setAutoCommit(false) and commit(), or in a method that is @Transactional
        var sql = "INSERT INTO outbox (topic, key, type, payload) VALUES (?, ?, ?, ?::json)";
        try (var insert = connection.prepareStatement(sql)) {
            insert.setString(1, "orders");
            insert.setString(2, "order-42");
            insert.setString(3, "OrderPlaced");
            insert.setString(4, "{\"total\": 3}");
            insert.executeUpdate();
        }
        // end
    }
}
