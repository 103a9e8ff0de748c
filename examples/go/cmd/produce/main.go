// Produce sends each line of its input as a record, and ends when all of them are on disk. Its records are numbered, so
// that what it sends again after a broken connection is stored once.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "logmill.example/gen/logmillv1"
	"logmill.example/internal/logmill"
)

const (
	// batchBytes is where a request takes no further line.
	batchBytes = 64 << 10
	// maxUnanswered is how many requests are under way: fewer than the 64 of a partition that the node knows again.
	maxUnanswered = 32
)

type line = logmill.Reply[[]byte]

func main() {
	key := flag.String("key", "", "the `KEY` of every record; without it records have none, and the partitions take turns")
	topic := logmill.Args("produce TOPIC [--key KEY] [--server URL] < LINES", 1)[0]

	logmill.Run(nil, func(ctx context.Context, conn *grpc.ClientConn) error {
		producer, err := newProducer(ctx, conn, topic, *key)
		if err != nil {
			return err
		}
		input := bufio.NewReader(os.Stdin)
		lines := logmill.Receive(ctx, func() ([]byte, error) { return input.ReadBytes('\n') })
		err = logmill.Retry(ctx, func(progress func()) error { return producer.send(ctx, lines, progress) })
		if err = errors.Join(err, producer.inputErr); err != nil {
			return fmt.Errorf("%d records are stored, and %d more were sent but not acknowledged: %w",
				producer.stored, producer.sent-producer.stored, err)
		}
		return json.NewEncoder(os.Stdout).Encode(map[string]int{"produced": producer.stored})
	})
}

// producer numbers its records in each partition, by which the node knows what it has already.
type producer struct {
	conn  *grpc.ClientConn
	topic string
	key   []byte
	id    *pb.InitProducerIdResponse

	// next is the number of the next record, by partition.
	next []int32
	// partition is where the next request goes.
	partition int32
	requests  uint64

	isInputOver bool
	inputErr    error
	// unanswered are requests in the order in which they were sent.
	unanswered   []*pb.ProduceStreamRequest
	sent, stored int
}

func newProducer(ctx context.Context, conn *grpc.ClientConn, topic, key string) (*producer, error) {
	described, err := logmill.DescribeTopic(ctx, conn, topic)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, logmill.CallTimeout)
	defer cancel()
	id, err := pb.NewProduceServiceClient(conn).InitProducerId(ctx, &pb.InitProducerIdRequest{})
	if err != nil {
		return nil, err
	}
	p := &producer{conn: conn, topic: topic, id: id, next: make([]int32, described.Topic.PartitionCount)}
	if key != "" {
		p.key = []byte(key)
		// Numbered records have to name their partition: the node does not choose it by the key for them.
		p.partition = logmill.PartitionOf(p.key, int32(len(p.next)))
	}
	return p, nil
}

// send sends the lines on one stream, after what a stream before it has left without an answer, until all of it is
// stored or something fails. A stream that breaks and a request that fails are the same here: the requests without an
// answer are sent again, in their order, and the node does not store twice what it has.
func (p *producer) send(ctx context.Context, lines <-chan line, progress func()) error {
	// After a signal the stream is still needed, for the answers.
	streamCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stream, err := pb.NewProduceServiceClient(p.conn).ProduceStream(streamCtx)
	if err != nil {
		return err
	}
	replies := logmill.Receive(streamCtx, stream.Recv)
	for _, request := range p.unanswered {
		_ = stream.Send(request) // if it cannot, then receiving says so, and why
	}
	signal := ctx.Done()
	for !p.isInputOver || len(p.unanswered) > 0 {
		more := lines
		if p.isInputOver || len(p.unanswered) == maxUnanswered {
			more = nil
		}
		var late <-chan time.Time
		if len(p.unanswered) > 0 {
			late = time.After(logmill.CallTimeout)
		}
		select {
		case <-signal: // what was sent is still waited for
			p.isInputOver, signal = true, nil
		case <-late:
			return status.Errorf(codes.DeadlineExceeded, "the node has not answered for %v", logmill.CallTimeout)
		case first := <-more:
			if request := p.batch(first, lines); request != nil {
				p.unanswered = append(p.unanswered, request)
				_ = stream.Send(request)
			}
		case reply := <-replies:
			if reply.Err != nil {
				return reply.Err
			}
			// The first reply says that the stream is open, every later one is an answer.
			if answer := reply.Message.GetAnswer(); answer != nil {
				if err := p.answered(answer); err != nil {
					return err
				}
				progress()
			}
		}
	}
	return nil
}

// batch makes a request of this line and of those that are there already; nil if there is no record in them.
func (p *producer) batch(next line, lines <-chan line) *pb.ProduceStreamRequest {
	var records []*pb.Record
	for size := 0; ; {
		size += len(next.Message)
		if value, isWhole := bytes.CutSuffix(next.Message, []byte("\n")); isWhole || len(value) > 0 {
			records = append(records, &pb.Record{Key: p.key, Value: value})
		}
		if next.Err != nil {
			p.isInputOver = true
			if next.Err != io.EOF {
				p.inputErr = fmt.Errorf("the input cannot be read: %w", next.Err)
			}
		}
		if p.isInputOver || size >= batchBytes {
			return p.number(records)
		}
		select {
		case next = <-lines:
		default: // one that comes slowly is not waited for
			return p.number(records)
		}
	}
}

// number makes a request of the records, for the partition whose turn it is.
func (p *producer) number(records []*pb.Record) *pb.ProduceStreamRequest {
	if len(records) == 0 {
		return nil
	}
	partition := p.partition
	if p.key == nil {
		p.partition = (partition + 1) % int32(len(p.next))
	}
	sequence := p.next[partition]
	p.next[partition] = (sequence + int32(len(records))) & math.MaxInt32 // after the largest comes 0
	p.requests++
	p.sent += len(records)
	return &pb.ProduceStreamRequest{CorrelationId: p.requests, Request: &pb.ProduceRequest{
		Topic:     p.topic,
		Partition: &partition,
		Payload:   &pb.ProduceRequest_Records{Records: &pb.RecordSet{Records: records}},
		Producer:  &pb.ProducerState{Id: p.id.ProducerId, Epoch: p.id.ProducerEpoch, BaseSequence: sequence},
	}}
}

func (p *producer) answered(answer *pb.ProduceStreamAnswer) error {
	// A request that names its partition has one result.
	if err := logmill.FromReply(answer.Results[0].GetError()); err != nil {
		return err
	}
	at := slices.IndexFunc(p.unanswered, func(it *pb.ProduceStreamRequest) bool {
		return it.CorrelationId == answer.CorrelationId
	})
	p.stored += len(p.unanswered[at].Request.GetRecords().Records)
	p.unanswered = slices.Delete(p.unanswered, at, at+1)
	return nil
}
