package supervisor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// How long a container may take to end by itself. One that writes to a volume may need its time; others can start anew.
const (
	graceWithVolume = 10 * time.Second
	graceWithout    = time.Second
)

// stopContainers asks every container to end, with the signal that its image names, all at once.
func stopContainers(s Settings, tell func(string)) error {
	connection, err := grpc.NewClient("unix://"+s.socket(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := cri.NewRuntimeServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), graceWithVolume+5*time.Second)
	defer cancel()
	running := &cri.ContainerFilter{State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}
	list, err := client.ListContainers(ctx, &cri.ListContainersRequest{Filter: running})
	if err != nil {
		return fmt.Errorf("listing the containers: %w", err)
	}
	var group sync.WaitGroup
	left := atomic.Int64{}
	left.Store(int64(len(list.Containers)))
	for _, container := range list.Containers {
		group.Go(func() {
			grace := graceWithout
			if writesToVolume(ctx, client, container.Id) {
				grace = graceWithVolume
			}
			_, err := client.StopContainer(ctx, &cri.StopContainerRequest{
				ContainerId: container.Id, Timeout: int64(grace.Seconds()),
			})
			if err != nil {
				say("stopping %s: %v", container.Metadata.GetName(), err)
			}
			tell(fmt.Sprintf("%d containers to end", left.Add(-1)))
		})
	}
	group.Wait()
	return nil
}

func writesToVolume(ctx context.Context, client cri.RuntimeServiceClient, id string) bool {
	answer, err := client.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return true
	}
	for _, mount := range answer.Status.GetMounts() {
		if strings.Contains(mount.HostPath, "/volumes/kubernetes.io~local-volume/") {
			return true
		}
	}
	return false
}
