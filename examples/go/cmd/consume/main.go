// Consume prints the records of a topic, as a member of a group: each value on a line. What is printed is committed
// behind it, so what comes twice after a crash is at most what was printed last.
package main

import (
	"bufio"
	"context"
	"flag"
	"os"

	"google.golang.org/grpc"

	"logmill.example/internal/logmill"
)

func main() {
	group := flag.String("group", "", "the `GROUP` to be a member of; required")
	limit := logmill.Limit("end after `N` records, instead of at a signal")
	topic := logmill.Args("consume TOPIC --group GROUP [-n N] [--server URL]", 1)[0]
	logmill.Check(*group != "", "give the group to be a member of, with --group")

	logmill.Run([]string{topic}, func(ctx context.Context, conn *grpc.ClientConn) error {
		out := bufio.NewWriter(os.Stdout)
		return logmill.Consume(ctx, conn, *group, topic, *limit, func(batch *logmill.Batch) error {
			for _, record := range batch.Records {
				out.Write(record.Value)
				out.WriteByte('\n')
			}
			// Before it is committed: the other way round a crash would lose records.
			return out.Flush()
		})
	})
}
