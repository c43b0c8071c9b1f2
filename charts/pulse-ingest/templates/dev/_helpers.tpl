{{- /* Selects by the name of the PulseIngest, because a parent chart may have several of them in one release. */ -}}
{{- define "pulse-ingest.dev.selector" -}}
app.kubernetes.io/name: {{ .part }}
app.kubernetes.io/instance: {{ include "pulse-ingest.name" .root | quote }}
{{- end -}}

{{- define "pulse-ingest.dev.labels" -}}
{{- merge (include "pulse-ingest.dev.selector" . | fromYaml) (include "pulse-ingest.labels" .root | fromYaml) | toYaml -}}
{{- end -}}

{{- define "pulse-ingest.dev.image" -}}
{{- $image := (get .root.Values.devDatastores .part).image -}}
{{- $registry := default $image.registry .root.Values.global.imageRegistry -}}
{{- list $registry $image.repository | compact | join "/" -}}:{{- $image.tag -}}
{{- end -}}

{{- /* Common pod settings of both datastores, for the Pod Security Standard `restricted`. */ -}}
{{- define "pulse-ingest.dev.pod" -}}
{{- $user := (get .root.Values.devDatastores .part).runAsUser -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with concat .root.Values.imagePullSecrets .root.Values.global.imagePullSecrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $user }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "pulse-ingest.dev.container" -}}
{{- $values := get .root.Values.devDatastores .part -}}
image: {{ include "pulse-ingest.dev.image" . }}
imagePullPolicy: {{ $values.image.pullPolicy }}
{{- with $values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "pulse-ingest.dev.claim" -}}
volumeClaimTemplates:
  - metadata:
      name: data
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .root.Values.devDatastores.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .root.Values.devDatastores.storageSize }}
{{- end -}}
