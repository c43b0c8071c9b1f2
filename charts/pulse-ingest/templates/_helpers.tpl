{{- define "pulse-ingest.name" -}}
{{- default .Release.Name .Values.nameOverride -}}
{{- end -}}

{{- define "pulse-ingest.labels" -}}
{{- $ours := dict "app.kubernetes.io/name" "pulse-ingest" "app.kubernetes.io/instance" .Release.Name -}}
{{- $_ := set $ours "app.kubernetes.io/part-of" "pulse" -}}
{{- $_ := set $ours "app.kubernetes.io/version" .Chart.AppVersion -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- toYaml (merge $ours .Values.commonLabels) -}}
{{- end -}}

{{- define "pulse-ingest.databaseSecret" -}}
{{- default (printf "%s-database" (include "pulse-ingest.name" .)) .Values.database.urlSecretRef.name -}}
{{- end -}}

{{- define "pulse-ingest.redisSecret" -}}
{{- default (printf "%s-redis" (include "pulse-ingest.name" .)) .Values.redis.urlSecretRef.name -}}
{{- end -}}

{{- define "pulse-ingest.authSecret" -}}
{{- default (printf "%s-auth" (include "pulse-ingest.name" .)) .Values.auth.jwtSecretRef.name -}}
{{- end -}}

{{- /* Puts the second map into the first, at every depth; unlike mergeOverwrite also what is empty, false or zero. */ -}}
{{- define "pulse-ingest.merge" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "pulse-ingest.merge" (list (get $into $key) $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The spec as it is applied. */ -}}
{{- define "pulse-ingest.spec" -}}
{{- $values := deepCopy .Values -}}
{{- $image := $values.image -}}
{{- $registry := default $image.registry $values.global.imageRegistry -}}
{{- $ofImage := dict "repository" (list $registry $image.repository | compact | join "/") "pullPolicy" $image.pullPolicy -}}
{{- if $image.digest -}}
{{- $_ := set $ofImage "digest" $image.digest -}}
{{- else -}}
{{- $_ := set $ofImage "tag" (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- with concat $values.imagePullSecrets $values.global.imagePullSecrets | uniq -}}
{{- $_ := set $ofImage "pullSecrets" . -}}
{{- end -}}
{{- $_ := set $values.database.urlSecretRef "name" (include "pulse-ingest.databaseSecret" .) -}}
{{- $_ := set $values.redis.urlSecretRef "name" (include "pulse-ingest.redisSecret" .) -}}
{{- if $values.auth.publicKeySecretRef -}}
{{- $_ := unset $values.auth "jwtSecretRef" -}}
{{- else -}}
{{- $_ := set $values.auth.jwtSecretRef "name" (include "pulse-ingest.authSecret" .) -}}
{{- end -}}
{{- $spec := dict "image" $ofImage "database" $values.database "redis" $values.redis "auth" $values.auth -}}
{{- range $key := list "api" "workers" "scheduler" "tasks" "migrations" "paused" "stopped" -}}
{{- with get $values $key -}}
{{- $_ := set $spec $key . -}}
{{- end -}}
{{- end -}}
{{- include "pulse-ingest.merge" (list $spec $values.spec) -}}
{{- /* The operator writes it: whoever applies it too would only take it away again, or be refused. */ -}}
{{- $scaling := dig "workers" "autoscaling" dict $spec -}}
{{- if and $scaling (eq (get $scaling "mode" | default "Internal") "Internal") -}}
{{- $_ := unset $spec.workers "replicas" -}}
{{- end -}}
{{- toYaml $spec -}}
{{- end -}}
