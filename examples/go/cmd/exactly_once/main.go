// Exactly_once copies records from one topic to another with their values in upper case, and leaves empty ones out.
// What it has made of its records and how far it has read are committed together, as a step: however often it or the
// node is killed, each record has its effect once.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "logmill.example/gen/logmillv1"
	"logmill.example/internal/logmill"
)

// messageBytes is a good size for one message of a step; the node takes 4 MiB and more, and 100,000 records.
const messageBytes = 256 << 10

func main() {
	group := flag.String("group", "", "the `GROUP` to be a member of; required")
	limit := logmill.Limit("end after `N` records of FROM, instead of at a signal")
	topics := logmill.Args("exactly_once FROM TO --group GROUP [-n N] [--server URL]", 2)
	logmill.Check(*group != "", "give the group to be a member of, with --group")
	logmill.Check(topics[0] != topics[1], "FROM and TO have to be different topics: what is written would be read again")

	var count struct {
		Steps   int `json:"steps"`
		Read    int `json:"read"`
		Written int `json:"written"`
	}
	logmill.Run(topics, func(ctx context.Context, conn *grpc.ClientConn) error {
		transactions := pb.NewTransactionServiceClient(conn)
		err := logmill.Consume(ctx, conn, *group, topics[0], *limit, func(batch *logmill.Batch) error {
			records := transform(batch.Records)
			step := messages(*group, topics[1], batch, records)
			// One that is not answered goes again as it was: the node knows it by its sequence and offsets.
			err := logmill.Retry(ctx, func(func()) error { return commit(ctx, transactions, step) })
			if err != nil {
				return err
			}
			batch.IsCommitted = true
			count.Steps++
			count.Read += len(batch.Records)
			count.Written += len(records)
			return nil
		})
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(count)
	})
}

// transform is what this program is about. The rest is how it has its effect once.
func transform(records []*pb.FetchedRecord) []*pb.Record {
	var made []*pb.Record
	for _, record := range records {
		if len(record.Value) > 0 {
			made = append(made, &pb.Record{
				Key:         record.Key,
				Value:       bytes.ToUpper(record.Value),
				TimestampMs: &record.TimestampMs,
				Headers:     record.Headers,
			})
		}
	}
	return made
}

// messages are those of a step: its header, and then the records.
func messages(group, to string, batch *logmill.Batch, records []*pb.Record) []*pb.CommitStepRequest {
	header := &pb.StepHeader{
		Group:    group,
		Unit:     batch.Unit.Epoch,
		Sequence: batch.Unit.NextStep,
		Offsets:  []*pb.OffsetToCommit{batch.End},
	}
	step := []*pb.CommitStepRequest{{Request: &pb.CommitStepRequest_Header{Header: header}}}
	var set *pb.RecordSet
	size := messageBytes
	for _, record := range records {
		if size += proto.Size(record); size > messageBytes {
			set, size = &pb.RecordSet{}, proto.Size(record)
			header.Topics = []string{to}
			step = append(step, &pb.CommitStepRequest{Request: &pb.CommitStepRequest_Records{Records: &pb.StepRecords{
				Topic:   to,
				Payload: &pb.StepRecords_Records{Records: set},
			}}})
		}
		set.Records = append(set.Records, record)
		header.TotalBytes += logmill.Size(record)
	}
	return step
}

// commit sends a step. Also after a signal it waits for the answer, so that what is counted is what was done.
func commit(ctx context.Context, transactions pb.TransactionServiceClient, step []*pb.CommitStepRequest) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logmill.CallTimeout)
	defer cancel()
	stream, err := transactions.CommitStep(ctx)
	if err != nil {
		return err
	}
	for _, message := range step {
		if stream.Send(message) != nil {
			break // the answer says why
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}
