// What every Java program here does besides being a client: it is started, runs steps and prints a line for each.
//
// Owns: the Java side of the contract that tests/clients/programs.py describes. The programs are started as
// `java CLASS CLIENT HOST PORT [STEP...]`.

import com.google.gson.Gson;
import java.io.IOException;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Supplier;
import java.util.stream.IntStream;

abstract class Program {
    private static final long LONGEST_STEP = 15;
    private static final Gson JSON = new Gson();

    /** Returns what it has to tell, or null. */
    interface Step {
        String run() throws Exception;
    }

    final String client;
    final String host;
    final int port;
    final String password;
    private final List<String> only;

    Program(String[] arguments) {
        client = arguments[0];
        host = arguments[1];
        port = Integer.parseInt(arguments[2]);
        only = Arrays.asList(arguments).subList(3, arguments.length);
        password = System.getenv("REDIS_PASSWORD");
    }

    /** The steps of programs.py, in their order. */
    abstract Map<String, Step> steps();

    /** Runs the steps and ends the process, whatever threads the library has. */
    void run(String version) {
        say(Map.of("client", client, "version", version));
        new LinkedHashMap<>(steps()).forEach((name, step) -> {
            if (only.isEmpty() || only.contains(name)) say(result(name, step));
        });
        System.exit(0);
    }

    private static Map<String, Object> result(String name, Step step) {
        var done = CompletableFuture.supplyAsync(() -> {
            try {
                var detail = step.run();
                return Map.<String, Object>of("step", name, "ok", true, "detail", detail == null ? "" : detail);
            } catch (Exception | AssertionError error) {
                return failed(name, error);
            }
        });
        try {
            return done.get(LONGEST_STEP, TimeUnit.SECONDS);
        } catch (InterruptedException | ExecutionException | TimeoutException error) {
            return failed(name, error);
        }
    }

    private static Map<String, Object> failed(String name, Throwable error) {
        return Map.of("step", name, "ok", false, "detail", String.valueOf(error));
    }

    static void say(Map<String, ?> line) {
        System.out.println(JSON.toJson(line));
    }

    /** Comes back once `what` was done to the server that this program is connected to. */
    static void askFor(String what) throws IOException {
        say(Map.of("ask", what));
        for (int read = System.in.read(); read != '\n' && read != -1; read = System.in.read()) {}
    }

    static void same(Object found, Object wanted, String what) {
        if (!Objects.equals(found, wanted)) {
            throw new AssertionError(what + ": " + found + " instead of " + wanted);
        }
    }

    static String[] named(String prefix, int count) {
        return IntStream.range(0, count).mapToObj(number -> prefix + ":" + number).toArray(String[]::new);
    }

    /** Polls until `poll` gives true. */
    static void until(Supplier<Boolean> poll, String what, long milliseconds) throws InterruptedException {
        for (long end = System.currentTimeMillis() + milliseconds; !poll.get(); Thread.sleep(20)) {
            if (System.currentTimeMillis() > end) throw new AssertionError(milliseconds + " ms without " + what);
        }
    }

    /** The version in the name of the jar that `type` is from. */
    static String versionOf(Class<?> type) {
        var jar = type.getProtectionDomain().getCodeSource().getLocation().getPath();
        return jar.replaceFirst(".*?([0-9][0-9.]*[0-9]).*\\.jar$", "$1");
    }
}
