import io.airlift.compress.zstd.ZstdInputStream;
import java.io.BufferedReader;
import java.io.FileInputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;

/** Prints all lines of zstd files, as Trino and Hadoop read them. */
public class PrintLines {
    public static void main(String[] paths) throws Exception {
        for (String path : paths) {
            var lines =
                    new BufferedReader(
                            new InputStreamReader(
                                    new ZstdInputStream(new FileInputStream(path)),
                                    StandardCharsets.UTF_8));
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                System.out.println(line);
            }
        }
    }
}
