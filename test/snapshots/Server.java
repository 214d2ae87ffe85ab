// The same as server.cjs, for a JVM.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.security.SecureRandom;
import java.util.Random;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Server {
  static volatile long ticks = 0, back = 0, last = System.nanoTime();
  static final SecureRandom secure = new SecureRandom();
  static final Random plain = new Random();

  static String draw() {
    return String.format(
        "{\"UUID.randomUUID of Java\":\"%s\",\"SecureRandom of Java\":\"%x\",\"Random of Java\":\"%x\",\"Math.random of Java\":\"%s\"}",
        UUID.randomUUID(), secure.nextLong(), plain.nextLong(), Math.random());
  }

  public static void main(String[] args) throws Exception {
    draw();
    Executors.newScheduledThreadPool(1).scheduleAtFixedRate(() -> {
      ticks++;
      long now = System.nanoTime();
      if (now < last) back++;
      last = now;
    }, 0, 50, TimeUnit.MILLISECONDS);
    System.setProperty("sun.net.httpserver.idleInterval", "100000");
    HttpServer server = HttpServer.create(new InetSocketAddress(8082), 10);
    server.createContext("/", exchange -> {
      String path = exchange.getRequestURI().getPath();
      byte[] text = (path.equals("/draw") ? draw() : "{\"ticks\":" + ticks + ",\"back\":" + back + "}").getBytes();
      exchange.sendResponseHeaders(200, text.length);
      exchange.getResponseBody().write(text);
      exchange.close();
    });
    server.start();
  }
}
