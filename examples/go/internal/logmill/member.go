package logmill

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "logmill.example/gen/logmillv1"
)

const (
	// creditBytes is what the node may send ahead of the work.
	creditBytes = 1 << 20
	// sessionTimeout is how long the units of a member that was killed wait for it.
	sessionTimeout = 10 * time.Second
)

// Batch is records of a unit, in order.
type Batch struct {
	Unit    *Unit
	Records []*pb.FetchedRecord
	// End is where the group goes on when the records are done.
	End *pb.OffsetToCommit
	// IsCommitted is set by who has committed the batch in a step. The others are committed for them.
	IsCommitted bool
}

// Unit is a share of the group's work that the member has: one partition, in the epoch of its assignment.
type Unit struct {
	Epoch *pb.UnitEpoch
	// NextStep is the sequence of the unit's next step.
	NextStep int64

	// done is behind what was worked on, and told is what of that the node was told last.
	done, told *pb.OffsetToCommit
	// isWaiting for the answer to a commit. There is one at a time: what is done meanwhile goes into the next one.
	isWaiting bool
	isRevoked bool
}

type member struct {
	conn  *grpc.ClientConn
	join  *pb.JoinGroup
	limit int
	work  func(*Batch) error

	line       *line
	units      map[string]*Unit
	commits    map[uint64]*Unit // those without an answer, by correlation id
	lastCommit uint64
	worked     int
	isStopped  bool
}

// Consume is a member of the group until a signal comes, or until limit records are done if that is above 0. It hands
// the records of its units to work, one batch after another, and commits each when work returns. A batch of which work
// says that the assignment is stale is another member's, and is not counted.
func Consume(ctx context.Context, conn *grpc.ClientConn, group, topic string, limit int, work func(*Batch) error) error {
	m := &member{conn: conn, limit: limit, work: work, units: map[string]*Unit{}}
	m.join = &pb.JoinGroup{
		Group:            group,
		Topics:           []string{topic},
		SessionTimeoutMs: proto.Int32(int32(sessionTimeout.Milliseconds())),
		CreditBytes:      creditBytes,
	}
	return Retry(ctx, func(progress func()) error { return m.takePart(ctx, progress) })
}

// takePart is a member on one stream, until it has left or the stream breaks.
func (m *member) takePart(ctx context.Context, joined func()) error {
	// After a signal the stream is still needed, to commit and to leave.
	streamCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	stream, err := pb.NewGroupServiceClient(m.conn).Consume(streamCtx)
	if err != nil {
		return err
	}
	m.line = &line{stream: stream}
	m.line.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Join{Join: m.join}})
	go m.line.beat(streamCtx)
	m.commitAgain()

	replies := Receive(streamCtx, stream.Recv)
	signal := ctx.Done()
	hasLeft := false
	for {
		if m.isStopped && len(m.commits) == 0 && !hasLeft {
			m.line.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Leave{Leave: &pb.LeaveGroup{}}})
			hasLeft = true
		}
		select {
		case <-signal:
			m.isStopped, signal = true, nil
		case reply := <-replies:
			if hasLeft && reply.Err != nil {
				return nil // the node has ended the stream; or it is gone, and the session ends by itself
			}
			if reply.Err != nil {
				return reply.Err
			}
			if err := m.take(reply.Message, joined); err != nil {
				return err
			}
		}
	}
}

// take does what the node says.
func (m *member) take(message *pb.ConsumeResponse, joined func()) error {
	switch reply := message.Reply.(type) {
	case *pb.ConsumeResponse_Joined:
		m.join.MemberId = &reply.Joined.MemberId // to come again with, after a break
		joined()
	case *pb.ConsumeResponse_Assigned:
		m.assign(reply.Assigned)
	case *pb.ConsumeResponse_Revoke:
		if unit := m.owned(reply.Revoke); unit != nil {
			unit.isRevoked = true
			m.giveUpIfDone(unit)
		}
	case *pb.ConsumeResponse_Lost:
		if unit := m.owned(reply.Lost.Unit); unit != nil {
			m.drop(unit)
		}
	case *pb.ConsumeResponse_Committed:
		return m.committed(reply.Committed)
	case *pb.ConsumeResponse_Data:
		return m.receive(reply.Data)
	}
	return nil
}

func (m *member) assign(assigned *pb.UnitAssigned) {
	if unit := m.owned(assigned.Unit); unit != nil {
		// It comes again after a break. The member keeps its own place and sequence: what the node says may be older than
		// a commit or step that was under way.
		unit.isRevoked = false
		return
	}
	unit := &Unit{Epoch: assigned.Unit}
	if assigned.LastStep != nil {
		unit.NextStep = *assigned.LastStep + 1
	}
	m.units[assigned.Unit.Unit] = unit
}

// receive has the work done with what of the data is new.
func (m *member) receive(received *pb.UnitData) error {
	data := received.Data
	if err := FromReply(data.Error); err != nil {
		return err
	}
	var records []*pb.FetchedRecord
	var bytes int64
	for _, chunk := range data.Chunks {
		for _, record := range chunk.GetRecords().GetRecords() {
			records = append(records, record)
			bytes += Size(record)
		}
	}
	if unit := m.owned(received.Unit); unit != nil && !m.isStopped && data.NextOffset > unit.done.GetOffset() {
		for len(records) > 0 && records[0].Offset < unit.done.GetOffset() {
			records = records[1:]
		}
		if err := m.do(&Batch{Unit: unit, Records: records, End: &pb.OffsetToCommit{
			Topic: data.Topic, Partition: data.Partition, Offset: data.NextOffset, LastEpoch: data.LastEpoch,
		}}); err != nil {
			return err
		}
	}
	// Also for what was left out: it was sent against credit all the same.
	if bytes > 0 {
		credit := &pb.SubscribeCredit{Bytes: bytes}
		m.line.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Credit{Credit: credit}})
	}
	return nil
}

// do has one batch worked on, as much of it as is wanted.
func (m *member) do(batch *Batch) error {
	if left := m.limit - m.worked; m.limit > 0 && left < len(batch.Records) {
		batch.Records = batch.Records[:left]
		batch.End.Offset = batch.Records[left-1].Offset + 1
		batch.End.LastEpoch = nil // what came is the epoch of the last record, which this may not be
	}
	err := m.work(batch)
	if Reason(err) == "STALE_ASSIGNMENT" {
		m.drop(batch.Unit)
		return nil
	}
	if err != nil {
		return err
	}
	m.worked += len(batch.Records)
	m.isStopped = m.isStopped || m.worked == m.limit && m.limit > 0
	batch.Unit.done = batch.End
	if batch.IsCommitted {
		batch.Unit.NextStep++
		batch.Unit.told = batch.End
	}
	m.commit(batch.Unit)
	return nil
}

// commit commits what is done of the unit and not committed yet, unless an answer is awaited: then its time comes.
func (m *member) commit(unit *Unit) {
	if unit.isWaiting || unit.told == unit.done {
		return
	}
	unit.isWaiting, unit.told = true, unit.done
	m.lastCommit++
	m.commits[m.lastCommit] = unit
	m.line.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Commit{Commit: &pb.CommitOffsets{
		CorrelationId: m.lastCommit,
		Unit:          unit.Epoch,
		Offsets:       []*pb.OffsetToCommit{unit.done},
	}}})
}

// commitAgain commits what a stream before this one has left without an answer.
func (m *member) commitAgain() {
	m.commits = map[uint64]*Unit{}
	for _, unit := range m.units {
		if unit.isWaiting {
			unit.isWaiting, unit.told = false, nil
			m.commit(unit)
		}
	}
}

func (m *member) committed(answer *pb.OffsetsCommitted) error {
	unit := m.commits[answer.CorrelationId]
	err := FromReply(answer.Error)
	if Reason(err) == "STALE_ASSIGNMENT" {
		delete(m.commits, answer.CorrelationId)
		m.drop(unit)
		return nil
	}
	if err != nil {
		return err
	}
	delete(m.commits, answer.CorrelationId)
	unit.isWaiting = false
	m.commit(unit)
	m.giveUpIfDone(unit)
	return nil
}

func (m *member) giveUpIfDone(unit *Unit) {
	if unit.isRevoked && !unit.isWaiting {
		m.drop(unit)
		revoked := &pb.UnitRevoked{Unit: unit.Epoch}
		m.line.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Revoked{Revoked: revoked}})
	}
}

// drop forgets a unit that is not the member's any more. If it comes again, then in another epoch.
func (m *member) drop(unit *Unit) {
	if m.owned(unit.Epoch) == unit {
		delete(m.units, unit.Epoch.Unit)
	}
}

// owned is the unit, if the member has it in this epoch.
func (m *member) owned(epoch *pb.UnitEpoch) *Unit {
	if unit := m.units[epoch.Unit]; unit != nil && unit.Epoch.Epoch == epoch.Epoch {
		return unit
	}
	return nil
}

// line is the sending side of a stream.
type line struct {
	mutex  sync.Mutex
	stream grpc.BidiStreamingClient[pb.ConsumeRequest, pb.ConsumeResponse]
}

// send says something to the node. If it cannot, then receiving says so, and why.
func (l *line) send(request *pb.ConsumeRequest) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	_ = l.stream.Send(request)
}

// beat gives signs of life, however long the work takes.
func (l *line) beat(ctx context.Context) {
	ticks := time.NewTicker(sessionTimeout / 4)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			l.send(&pb.ConsumeRequest{Request: &pb.ConsumeRequest_Heartbeat{Heartbeat: &pb.Heartbeat{}}})
		}
	}
}

// Size is what a record counts against credit, and in the total of a step.
func Size(record interface {
	GetKey() []byte
	GetValue() []byte
	GetHeaders() []*pb.Header
}) int64 {
	size := len(record.GetKey()) + len(record.GetValue())
	for _, header := range record.GetHeaders() {
		size += len(header.Key) + len(header.Value)
	}
	return int64(size)
}

// Reply is a message of a stream, or how the stream ended.
type Reply[M any] struct {
	Message M
	Err     error
}

// Receive reads a stream into a channel, where its messages can be awaited together with other things. The last one is
// that with an error.
func Receive[M any](ctx context.Context, recv func() (M, error)) <-chan Reply[M] {
	replies := make(chan Reply[M], 256)
	go func() {
		for {
			message, err := recv()
			select {
			case replies <- Reply[M]{message, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return replies
}
